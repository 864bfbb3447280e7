"""How the pictures of the embedded data set are drawn: place, figure, texture, colors, light.

A chunk is 32 pictures, two of each class, drawn together by arrays of shape (2, 16, 1, 1), a number
for each picture, or (2, 16, 72, 72), one for each of its pixels; the second axis is the class.
Lengths are in pixels, angles in radians, colors from 0 to 1, and all of it is float32.
"""
import numpy as np

from .. import random

CLASSES = ("horizontal stripes", "vertical stripes", "diagonal stripes", "zigzag",
           "bullseye", "spokes", "checkerboard", "dots",
           "disc", "square", "triangle", "star",
           "red over green", "green over red", "blue over yellow", "yellow over blue")
TEXTURES, FIGURES, PAIRS, DIAGONAL = slice(0, 8), slice(8, 12), slice(12, 16), 2
SIDE = 72
CHUNK = 32
HUES = {"red": 0.0, "green": 0.36, "blue": 0.62, "yellow": 0.15}

TURN = np.float32(2 * np.pi)
GRID = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)       # the centers of the pixels


def draw_chunk(split, seed, chunk):
    """Draw the pictures ``32 * chunk`` to ``32 * chunk + 31``: uint8, shape (32, 72, 72, 3)."""
    rng = random.generator("shapes", split, seed=seed, index=chunk)
    radius = _uniform(rng, 17, 30)
    soft = _uniform(rng, 0.7, 2)                   # pixels from one side of an edge to the other
    u, v = coordinates(rng, radius)                # (2, 16, 72, 72)
    inside = masks(rng, u, v, radius, soft)        # (2, 16, 72, 72): 1 in the figure, 0 around it
    share = textures(rng, u, v, soft)              # (2, 16, 72, 72): 1 in the first color, or 0
    first, second, ground = palette(rng)           # (2, 16, 3, 1, 1)
    ground = ground + grating(rng)                 # (2, 16, 3, 72, 72)
    picture = second + (first - second) * share[:, :, None]
    picture -= ground
    picture *= inside[:, :, None]
    picture += ground
    picture *= light(rng)
    picture += noise(rng)
    picture *= 255
    picture += np.float32(0.5)                     # astype cuts off what follows the point
    np.clip(picture, 0, 255, out=picture)
    rows = picture.reshape(CHUNK, 3, SIDE, SIDE).astype(np.uint8)
    return np.ascontiguousarray(rows.transpose(0, 2, 3, 1))


# ---- where: coordinates and masks -----------------------------------------------------------

def coordinates(rng, radius):
    """Return u to the right and v downward of each figure's center, in pixels, turned."""
    room = SIDE / 2 + 1 - radius                                # at most 1 pixel lies outside
    x = GRID - (SIDE / 2 + room * _uniform(rng, -1, 1))                     # (2, 16, 1, 72)
    y = GRID[:, None] - (SIDE / 2 + room * _uniform(rng, -1, 1))            # (2, 16, 72, 1)
    angle = np.radians(_uniform(rng, -8, 8))
    angle[:, DIAGONAL] += np.pi / 4 * rng.choice((-1, 1), (2, 1, 1))        # both ways, one class
    angle[:, FIGURES] = _uniform(rng, 0, 2 * np.pi)[:, FIGURES]
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def masks(rng, u, v, radius, soft):
    """Return how much of each pixel the figure covers: its distance to the edge, softened."""
    disc = radius - np.hypot(u, v)
    square = np.float32(0.85) * radius - np.maximum(np.abs(u), np.abs(v))
    kind = rng.integers(3, size=(2, 16, 1, 1))                  # disc, square, the whole field
    kind[:, PAIRS] %= 2
    depth = np.where(kind == 0, disc, np.where(kind == 1, square, np.float32(SIDE)))
    depth[:, 8], depth[:, 9] = disc[:, 8], square[:, 9]
    depth[:, 10] = polygon(u[:, 10], v[:, 10], radius[:, 10], 3, 0.5)
    depth[:, 11] = polygon(u[:, 11], v[:, 11], radius[:, 11], 5, 0.4)
    return np.clip(depth / soft + np.float32(0.5), 0, 1)


def polygon(u, v, radius, points, waist):
    """Return the depth in pixels below the edge of a star whose inner corners are at `waist`.

    A star is one line, from a point to the next inner corner, folded by its symmetry. With
    `waist` equal to cos(pi / points) the line goes straight on: a triangle is a star too.
    """
    sector = np.float32(np.pi / points)
    angle = np.abs((np.arctan2(u, v) + sector) % (2 * sector) - sector)     # 0 at a point
    distance = np.hypot(u, v)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    inner_x, inner_y = waist * np.cos(sector), waist * np.sin(sector)       # the point is (1, 0)
    length = np.hypot(1 - inner_x, inner_y)
    return (inner_y * (radius - along) - (1 - inner_x) * across) / length


# ---- what: textures ------------------------------------------------------------------------

def textures(rng, u, v, soft):
    """Return the share of the first color: a wave for the textures, halves for the pairs."""
    share = np.ones((2, 16, SIDE, SIDE), np.float32)            # silhouettes are of one color
    period, phase = _uniform(rng, 5, 12), _uniform(rng, 0, 2 * np.pi)
    sharp = _uniform(rng, 0.5, 3)                               # from a sine to hard edges
    for label, wave in enumerate(WAVES):
        share[:, label] = wave(u[:, label], v[:, label], period[:, label], phase[:, label])
    share[:, TEXTURES] *= sharp[:, TEXTURES]
    share[:, TEXTURES] += np.float32(0.5)
    share[:, PAIRS] = np.float32(0.5) - (v / soft)[:, PAIRS]    # v grows downward: first above
    return np.clip(share, 0, 1, out=share)


def _stripes(u, v, period, phase):
    return np.sin(TURN / period * v + phase)


def _upright(u, v, period, phase):
    return np.sin(TURN / period * u + phase)


def _zigzag(u, v, period, phase):
    tooth = np.abs((u / (2 * period) + phase) % 1 - np.float32(0.5))        # 0 to 1/2 and back
    return np.sin(TURN / period * (v + 3 * period * tooth))


def _bullseye(u, v, period, phase):
    return np.sin(TURN / period * np.hypot(u, v) + phase)


def _spokes(u, v, period, phase):
    return np.sin(np.round(48 / period) * np.arctan2(v, u) + phase)         # 4 to 10 of them


def _checkerboard(u, v, period, phase):
    # Cells of period / 0.9: smaller ones pass for diagonals at the edge of what can be resolved.
    step = np.float32(0.45) * TURN / period
    return np.sin(step * u + phase) * np.sin(step * v + phase) * 2


def _dots(u, v, period, phase):
    step = TURN / (np.float32(1.4) * period)
    return np.cos(step * u + phase) + np.cos(step * v + phase) - 1


WAVES = (_stripes, _upright, _stripes, _zigzag, _bullseye, _spokes, _checkerboard, _dots)


# ---- how it looks: palette, light, noise ----------------------------------------------------

def palette(rng):
    """Return the two colors of the figure and that of the ground, with contrast between them."""
    hue, saturation, value = (_uniform(rng, 0, 1) for _ in range(3))
    first = color(hue, saturation, value)
    # 7 of 10 textures are two shades of one color: pairs of any colors teach rainbow filters
    # to the first layer and no grey ones.
    other = np.where(_uniform(rng, 0, 1) < 0.7, hue, _uniform(rng, 0, 1))
    second = color(other, saturation, _far_from(rng, value))
    ground = color(_uniform(rng, 0, 1), _uniform(rng, 0, 0.5), _far_from(rng, value))
    for label, names in zip(range(12, 16), CLASSES[PAIRS], strict=True):
        above, below = names.split(" over ")
        for half, name in ((first, above), (second, below)):
            half[:, label] = color(HUES[name] + _uniform(rng, -0.03, 0.03)[:, label],
                                   _uniform(rng, 0.6, 1)[:, label],
                                   _uniform(rng, 0.5, 0.95)[:, label])
    return first, second, ground


def color(hue, saturation, value):
    """Return RGB for hue, saturation and value, 0 to 1 each: (..., 1, 1) to (..., 3, 1, 1)."""
    thirds = np.array([0, 4, 2], np.float32).reshape(3, 1, 1)
    hue = np.abs((hue[..., None, :, :] * 6 + thirds) % 6 - 3) - 1
    saturation, value = saturation[..., None, :, :], value[..., None, :, :]
    return value * (1 - saturation * (1 - np.clip(hue, 0, 1)))


def grating(rng):
    """Return a faint wave over the ground: (2, 16, 1, 72, 72)."""
    period, angle = _uniform(rng, 4, 24), _uniform(rng, 0, 2 * np.pi)
    wave = np.cos(angle) * GRID + np.sin(angle) * GRID[:, None]
    wave = np.sin(TURN / period * wave + _uniform(rng, 0, 2 * np.pi))
    return (_uniform(rng, 0, 0.08) * wave)[:, :, None]


def light(rng):
    """Return the light on the whole picture: bright or dim, tinted, falling off to one side."""
    slope, angle = _uniform(rng, 0, 0.7), _uniform(rng, 0, 2 * np.pi)
    middle = GRID / SIDE - np.float32(0.5)
    fall = 1 + slope * (np.cos(angle) * middle + np.sin(angle) * middle[:, None])
    tint = rng.uniform(0.85, 1, (2, 16, 3, 1, 1)).astype(np.float32)
    return fall[:, :, None] * (tint * _uniform(rng, 0.7, 1.15)[:, :, None])


def noise(rng):
    """Return the grain of the picture: (2, 16, 3, 72, 72)."""
    # Even, not normal: one random byte each costs a quarter of the time, and nobody can tell.
    grain = rng.integers(-128, 128, (2, 16, 3, SIDE, SIDE), np.int8)
    return grain * (_uniform(rng, 0.02, 0.09)[:, :, None] / 128)


def _far_from(rng, value):
    return (value + _uniform(rng, 0.35, 0.65)) % 1


def _uniform(rng, low, high):
    """Draw one number for each picture of a chunk, ready to meet its pixels: (2, 16, 1, 1)."""
    return rng.uniform(low, high, (2, 16, 1, 1)).astype(np.float32)
