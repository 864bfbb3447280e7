"""The two sides of a comparison on a graphics card: each holds its net there, and launches work.

Nothing here waits for the card but :meth:`Card.wait` and what calls it, as a program that trains
would not either.
"""
import functools
import math
import time

import numpy as np
import worker

SQUARES = (4096, 8192)            # matrices whose product is the ceiling of arithmetic
COPIED = 1 << 30                  # bytes of the array whose copy is the ceiling of traffic
REPEATS = 10                      # of a product or a copy, in one timing
LEAD = 0.1                        # seconds of work that the card is given ahead of a watched step


class Moment:
    """A mark in the card's queue of work; a difference of two is a span, to be measured later."""

    def __init__(self, event):
        self.event = event

    def __sub__(self, earlier):
        return earlier.event, self.event


class Card:
    """What both sides have in common.

    Attributes
    ----------
    side : worker.TinyAlex or worker.Torch
        Its net is on the card; its pictures are those of the batch.
    images, labels
        All of them, on the host.
    """

    def __init__(self, side):
        self.side, self.images, self.labels = side, side.x, side.y
        side.x = side.y = None
        self.squares = self.leading = None       # arrays of product(); how many calls take LEAD

    def step(self):
        """Launch a step of training; return its loss, still on the card."""
        self.side.optimizer.zero_grad()
        loss = self.cross_entropy(self.side.net(self.side.x), self.side.y)
        loss.backward()
        self.side.optimizer.step()
        return loss

    def stretch(self, run, count):
        """Return the seconds of one of `count` calls of `run`, done by the card, and the last."""
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            result = run()
        self.wait()
        return (time.perf_counter() - start) / count, result

    def lead(self):
        """Give the card work for LEAD seconds, so that the host comes to be ahead of it."""
        if self.leading is None:
            self.product()
            self.leading = math.ceil(LEAD / self.stretch(self.product, 3)[0])
        for _ in range(self.leading):
            self.product()


def numbers(n=None):
    """Return a matrix of n x n. Not of zeros: a card draws less power on them, and runs faster."""
    n = n or SQUARES[-1]
    return np.random.default_rng(0).standard_normal((n, n), np.float32)


class OnCuPy(Card):
    """tinyalex's side."""

    def __init__(self, side, device="cuda:0"):
        super().__init__(side)
        self.device = side.ta.Device(device)
        self.cross_entropy, self.dropout = side.F.cross_entropy, side.ta.nn.Dropout
        side.net.to(self.device)

    def take(self, n):
        """Put the first `n` pictures on the card. Labels stay on the host, as the loader has it."""
        self.side.x = None
        self.device.empty_cache()
        self.side.x = self.side.ta.Tensor(self.images[:n], self.device)
        self.side.y = self.labels[:n]

    def gradients(self):
        """Yield the parameters' names and gradients, on the host."""
        for name, p in self.side.net.named_parameters():
            yield worker.own_name(name), self.device.numpy(p.grad)

    def wait(self):
        """Wait for the card."""
        self.device.synchronize()

    def moment(self):
        """Return a mark in the card's queue of work."""
        with self.device.scope():
            return Moment(self.device.xp.cuda.get_current_stream().record())

    def elapsed(self, span):
        """Return the seconds between two marks."""
        return self.device.xp.cuda.get_elapsed_time(*span) / 1e3

    def product(self, n=None):
        """Launch the product of a matrix of n x n with itself."""
        if self.squares is None or n not in (None, len(self.squares[0])):
            self.squares = [self.device.array(numbers(n)) for _ in range(2)]
        a, c = self.squares
        with self.device.scope():
            self.device.xp.matmul(a, a, out=c)

    def ceilings(self):
        """Return what the card can do at most, under the names that layers.py gives it."""
        best = 0.0
        for n in SQUARES:
            self.product(n)
            seconds, _ = self.stretch(functools.partial(self.product, n), REPEATS)
            best = max(best, 2 * n**3 / seconds)
        self.squares = None
        source, target = (self.device.zeros((COPIED,), np.uint8) for _ in range(2))

        def copy():
            with self.device.scope():
                self.device.xp.copyto(target, source)

        copy()
        seconds, _ = self.stretch(copy, REPEATS)
        return {"sgemm_gflops": best / 1e9, "copy_gbs": 2 * COPIED / seconds / 1e9}

    def memory(self):
        """Return the most bytes that CuPy's pool had in use in a step, and the most it held.

        The pool keeps no record of the former, so it is asked at each allocation.
        """
        device = self.device

        class Peak(device.xp.cuda.MemoryHook):
            name, most = "peak", 0

            def malloc_postprocess(self, **allocation):
                self.most = max(self.most, device.memory()["used_bytes"])

        self.squares = None
        device.empty_cache()
        with Peak() as peak:
            self.step()
        self.wait()
        return {"used": peak.most, "held": device.memory()["held_bytes"]}

    def columns(self, mebi):
        """Change the size of a convolution's columns, and make a step that finds their memory."""
        from tinyalex.ops import conv_cuda

        before, conv_cuda.COLUMNS = conv_cuda.COLUMNS, mebi << 20
        self.device.empty_cache()
        self.step()
        return {"before": before >> 20}


class OnTorch(Card):
    """PyTorch's side."""

    def __init__(self, side, precision, device="cuda"):
        super().__init__(side)
        self.torch, self.device = side.torch, device
        self.cross_entropy = self.torch.nn.functional.cross_entropy
        self.dropout = self.torch.nn.Dropout
        backends = self.torch.backends
        backends.cudnn.benchmark = True                  # it may look for the fastest algorithm
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = precision == "tf32"
        side.net.to(device)

    def take(self, n):
        """Put the first `n` pictures and labels on the card."""
        self.side.x = self.side.y = None
        self.torch.cuda.empty_cache()
        self.side.x, self.side.y = (a[:n].to(self.device) for a in (self.images, self.labels))

    def gradients(self):
        """Yield the parameters' names and gradients, on the host."""
        for name, p in self.side.net.named_parameters():
            yield name, p.grad.cpu().numpy()

    def wait(self):
        """Wait for the card."""
        self.torch.cuda.synchronize()

    def moment(self):
        """Return a mark in the card's queue of work."""
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return Moment(event)

    def elapsed(self, span):
        """Return the seconds between two marks."""
        return span[0].elapsed_time(span[1]) / 1e3

    def product(self):
        """Launch the product of a large matrix with itself."""
        if self.squares is None:
            self.squares = [self.torch.tensor(numbers(), device=self.device) for _ in range(2)]
        a, c = self.squares
        self.torch.mm(a, a, out=c)

    def memory(self):
        """Return the most bytes allocated in a step, and the most reserved."""
        self.squares = None
        self.torch.cuda.empty_cache()
        self.torch.cuda.reset_peak_memory_stats()
        self.step()
        self.wait()
        return {"used": self.torch.cuda.max_memory_allocated(),
                "held": self.torch.cuda.max_memory_reserved()}
