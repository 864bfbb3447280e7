"""Hypothesis strategies: structure is drawn, numbers come from a drawn seed.

What breaks an op is its geometry (a stride that does not divide, padding on one side only), its
memory layout and its dtype, seldom the value 0.3716. So Hypothesis draws those and shrinks them,
and nothing here is filtered: a geometry is built from its output backward, so each draw is valid
and the awkward cases are as likely as the smooth ones.

    @given(strategies.conv_geometry(), strategies.layouts(), strategies.seeds())
    def test_conv2d(geometry, layout, seed):
        x = strategies.laid_out(strategies.normal(geometry.x_shape, seed), layout)
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

LAYOUTS = ("C", "F", "channels_last", "sliced", "negative", "read_only")


def register_profiles():
    """Register dev (10 examples), default (50), ci (50, the same ones each time), thorough (1000).

    ``default`` is loaded; ``pytest --hypothesis-profile=NAME`` takes another. No deadline: how
    long an example takes says more about the machine than about the code.
    """
    settings.register_profile("dev", max_examples=10, deadline=None)
    settings.register_profile("default", max_examples=50, deadline=None)
    settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True,
                              database=None, print_blob=True)
    settings.register_profile("thorough", max_examples=1000, deadline=None)
    settings.load_profile("default")


# ---------------------------------------------------------------------------- geometry

@dataclass(frozen=True)
class Axis:
    """One spatial axis of a window op: `out` windows of `kernel` fit into `size`."""

    size: int
    kernel: int
    stride: int
    pads: tuple
    out: int


@dataclass(frozen=True)
class Geometry:
    """A whole window op: shapes, and the keywords in one of the spellings the functions take."""

    batch: int
    channels: int
    filters: int
    groups: int
    rows: Axis
    columns: Axis
    ceil_mode: bool

    @property
    def x_shape(self):
        return self.batch, self.channels, self.rows.size, self.columns.size

    @property
    def w_shape(self):
        return self.filters, self.channels // self.groups, self.rows.kernel, self.columns.kernel

    @property
    def conv_shape(self):
        return self.batch, self.filters, self.rows.out, self.columns.out

    @property
    def pool_shape(self):
        return self.batch, self.channels, self.rows.out, self.columns.out

    @property
    def kernel_size(self):
        return _shortest(self.rows.kernel, self.columns.kernel)

    @property
    def stride(self):
        return _shortest(self.rows.stride, self.columns.stride)

    @property
    def padding(self):
        """An int, (ph, pw) or ((top, bottom), (left, right)): the shortest that says it."""
        (top, bottom), (left, right) = self.rows.pads, self.columns.pads
        if (top, left) == (bottom, right):
            return _shortest(top, left)
        return self.rows.pads, self.columns.pads

    @property
    def window(self):
        """Stride, padding and ceil_mode as keywords: of im2col, and with a kernel of a pool."""
        return dict(stride=self.stride, padding=self.padding, ceil_mode=self.ceil_mode)

    @property
    def conv(self):
        """The keywords of conv2d."""
        return dict(self.window, groups=self.groups)

    @property
    def pool(self):
        """The keywords of a pool."""
        return dict(self.window, kernel_size=self.kernel_size)


def _shortest(a, b):
    return a if a == b else (a, b)


@st.composite
def axes(draw, ceil_mode=False, pool=False, kernel=3, stride=3, out=3, padding=2):
    """Draw an Axis; `kernel`, `stride`, `out` and `padding` are the largest that are drawn.

    From out to in: `out` windows of K, S apart, cover (out-1)*S + K.  Under the floor rule up to
    S-1 rows are left over behind them; under the ceil rule the last window hangs over by up to
    S-1.  Padding is part of what is covered, and the picture keeps at least one row.
    """
    K, S = draw(st.integers(1, kernel)), draw(st.integers(1, stride))
    O = draw(st.integers(1, out))
    covered = (O - 1) * S + K
    if ceil_mode:
        # a single window fits into the padded picture; of several, only the last hangs over
        covered -= draw(st.integers(0, S - 1)) if O > 1 else 0
    else:
        covered += draw(st.integers(0, S - 1))
    most = min(padding, K // 2) if pool else padding       # a pool's window must meet a pixel
    before = draw(st.integers(0, min(most, covered - 1)))
    after = draw(st.integers(0, min(most, covered - 1 - before)))
    size = covered - before - after
    if pool and ceil_mode and (O - 1) * S >= before + size:
        O -= 1                                             # a pool's window starts inside
    return Axis(size, K, S, (before, after), O)


@st.composite
def conv_geometry(draw, ceil_mode=None, **largest):
    """Draw a Geometry for conv2d; `ceil_mode` None draws it, too. `largest` as in `axes`."""
    ceil_mode = draw(st.booleans()) if ceil_mode is None else ceil_mode
    groups = draw(st.integers(1, 2))
    return Geometry(batch=draw(st.integers(1, 2)), channels=groups * draw(st.integers(1, 2)),
                    filters=groups * draw(st.integers(1, 2)), groups=groups,
                    rows=draw(axes(ceil_mode, **largest)),
                    columns=draw(axes(ceil_mode, **largest)), ceil_mode=ceil_mode)


@st.composite
def pool_geometry(draw, ceil_mode=None, **largest):
    """Draw a Geometry for the pools: padding of at most half the kernel."""
    ceil_mode = draw(st.booleans()) if ceil_mode is None else ceil_mode
    channels = draw(st.integers(1, 3))
    return Geometry(batch=draw(st.integers(1, 2)), channels=channels, filters=channels, groups=1,
                    rows=draw(axes(ceil_mode, True, **largest)),
                    columns=draw(axes(ceil_mode, True, **largest)), ceil_mode=ceil_mode)


def map_shapes(channels=8):
    """Shapes (N, C, H, W) of feature maps: up to `channels` channels, rows unlike columns."""
    return st.tuples(st.integers(1, 2), st.integers(1, channels), st.integers(1, 4),
                     st.integers(1, 5))


@st.composite
def norm_shapes(draw):
    """Draw (size, shape) for a response norm: from one channel to three more than the window."""
    size = draw(st.integers(1, 5))
    return size, (draw(st.integers(1, 2)), draw(st.integers(1, size + 3)),
                  draw(st.integers(1, 3)), draw(st.integers(1, 4)))


# ---------------------------------------------------------------------------- how and where

def dtypes():
    """float32 and float64."""
    return st.sampled_from([np.float32, np.float64])


def layouts():
    """The names that `laid_out` takes."""
    return st.sampled_from(LAYOUTS)


def device_names():
    """The devices of this machine: two logical CPUs, a stand-in for a GPU where its kernels can be
    compiled, and the first GPU if there is one."""
    import cards
    from tinyalex.device import BackendUnavailable, Device
    names = ["cpu:0", "cpu:1"] + [cards.card("cuda:8").name] * (not cards.MISSING)
    try:
        names.append(Device("cuda:0").name)
    except BackendUnavailable:
        pass
    return names


def devices():
    """The devices of this machine, by name."""
    return st.sampled_from(device_names())


def laid_out(array, layout):
    """Return an equal array that lies in memory as `layout` says.

    "C", "F"         rows last, or the first axis fastest
    "channels_last"  (N, C, H, W) stored as N, H, W, C; fewer axes: as "C"
    "sliced"         every second element of a larger array whose other half is NaN
    "negative"       every axis stored backward
    "read_only"      "C", and writing raises
    """
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "channels_last" and array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "sliced":
        larger = np.full([2 * n + 1 for n in array.shape], np.nan, array.dtype)
        view = larger[(slice(1, None, 2),) * array.ndim]
        view[...] = array
        return view
    if layout == "negative":
        return np.flip(np.flip(array).copy())
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}; expected one of {', '.join(LAYOUTS)}")
    array = np.array(array, order="C")
    array.flags.writeable = layout != "read_only"
    return array


# ---------------------------------------------------------------------------- values

def seeds():
    """What the value functions below take."""
    return st.integers(0, 2**32 - 1)


def normal(shape, seed, dtype=np.float64, scale=1.0):
    """Random numbers of mean 0; for smooth and for multilinear ops."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def away_from_zero(shape, seed, dtype=np.float64, margin=0.1):
    """Random numbers of either sign and at least `margin` in size: no kink of a ReLU is near.

    With margin 2 a ReLU is a straight line along steps of 1 (kind="multilinear").
    """
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1.0, 1.0], shape)
    return (sign * (margin + np.abs(rng.standard_normal(shape)))).astype(dtype)


def distinct(shape, seed, dtype=np.float64, gap=None):
    """A shuffled row of evenly spaced numbers around 0: no maximum is a tie, nor nearly one.

    They stand `gap` apart, 1/size if None.  With gap 4 a maximum is a straight line along steps
    of 1 (kind="multilinear").
    """
    size = int(np.prod(shape))
    row = np.random.default_rng(seed).permutation(size) - (size - 1) / 2
    return (row * (1 / size if gap is None else gap)).reshape(shape).astype(dtype)


def labels(count, classes, seed):
    """`count` class numbers below `classes`."""
    return np.random.default_rng(seed).integers(0, classes, count)


def mask(shape, seed, keep=0.5):
    """A boolean array, True with probability `keep`."""
    return np.random.default_rng(seed).random(shape) < keep
