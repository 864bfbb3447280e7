"""What ranks tell each other: counts, checkpoints, gradients, and whether they still agree.

``Solo`` is one process that trains alone, and says what each of these comes to there; ``Ranks``
are the processes that mpiexec has started together.
"""
import contextlib
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from ..device import get_num_threads, nccl, set_num_threads
from ..device.cuda import device_count
from . import console
from .buckets import buckets, checksum
from .ending import Ending
from .evaluate import Tally


class Mismatch(RuntimeError):
    """The ranks no longer hold the same weights; the message names step, ranks and parameters."""


class Elsewhere:
    """The run's folder as the ranks see it that write nothing."""

    def __init__(self, path):
        self.path, self.checkpoints = Path(path), Path(path) / "checkpoints"

    def log(self, row):
        """Leave it to rank 0."""

    def go_back(self, step, validated):
        """Leave it to rank 0."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Solo:
    """One process that trains alone: what all that follows comes to where there is one rank.

    Attributes
    ----------
    rank, size : int
    leads : bool
        Whether this is rank 0.

    Examples
    --------
    >>> SOLO.total(3, 0.5), SOLO.gather("a"), SOLO.leads
    ([3, 0.5], ['a'], True)
    """

    rank, size, leads = 0, 1, True

    def total(self, *numbers):
        """Return the sums over all ranks of some numbers, the same bits on each."""
        return list(numbers)

    def gather(self, value):
        """Return the ranks' values in order, on each of them; what JSON can hold."""
        return [value]

    def summed(self, tally):
        """Return what all ranks' Tallies have counted together."""
        return tally

    def pooled(self, tally):
        """Return on rank 0 what all ranks' Tallies have counted together, and on others nothing."""
        return tally

    def lines(self, lines):
        """Return all ranks' lines; most often there is none."""
        return lines

    def average(self, params, share):
        """Sum `share` times the gradients over the ranks, and put the sum in their place.

        With the ranks' shares of the pictures that is the mean over the global batch.
        """

    def must_match(self, step, net):
        """Raise a :class:`Mismatch` unless all ranks hold the same bits."""

    def must_divide(self, batch_size):
        """Raise a Mistake unless all ranks get equally many pictures of a batch."""

    def resumed(self, find, *args):
        """Return on all ranks the (path, arrays, meta) that ``find(*args)`` gives to rank 0."""
        return find(*args)

    def folder(self, make, *args):
        """Return what ``make(*args)`` gives to rank 0; to the others a folder not to write to."""
        return make(*args)

    def first_alone(self):
        """Context: rank 0 goes through it, and the others after it. (What it fetches is there.)"""
        return contextlib.nullcontext()

    def gpus(self, args):
        """Return this rank's ``--gpus``."""
        return args.gpus

    def use(self, device):
        """Prepare to sum gradients on a device; return a word on how, or ""."""
        return ""

    def command(self, *arguments):
        """Return a command line for this program, with as many ranks."""
        return console.command(*arguments)

    def failing(self):
        """Let rank 0 speak for all where all are about to fail alike."""

    def finish(self):
        """Wait until all ranks are done: from here on each may leave when it likes."""

    def leave(self, code):
        """End all ranks where this one ends with a fault that the others do not know of."""


SOLO = Solo()


class Ranks(Solo):
    """The processes that mpiexec has started together.

    Parameters
    ----------
    MPI : module
        mpi4py's.
    watchdog : float
        Seconds without progress after which the job ends.
    """

    def __init__(self, MPI, watchdog):
        self._world = MPI.COMM_WORLD
        self.rank, self.size = self._world.rank, self._world.size
        self.leads = self.rank == 0
        self._ring = self._buckets = None
        console.speaker = f" (rank {self.rank} of {self.size})"
        self._ending = ending = Ending(self._world, watchdog)
        self._waiting, self.failing, self.leave = ending.waiting, ending.failing, ending.leave
        self.finish = ending.finish
        self._machine = machine = MPI.Get_processor_name()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        places = self.gather([machine, cores])
        self.local_rank = sum(other == machine for other, _ in places[:self.rank])
        set_num_threads(max(1, get_num_threads() // places.count([machine, cores])))
        if not self.leads:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")

    # ---- what the ranks tell each other

    def total(self, *numbers):
        every = np.empty((self.size, len(numbers)))
        with self._waiting("their counts"):
            self._world.Allgather(np.array(numbers, np.float64), every)
        return [int(s) if isinstance(n, int) else float(s)
                for n, s in zip(numbers, every.sum(0), strict=True)]

    def gather(self, value):
        own = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = np.empty(self.size, np.int64)
        with self._waiting("their message"):
            self._world.Allgather(np.array([len(own)], np.int64), lengths)
            every = np.empty(lengths.sum(), np.uint8)
            self._world.Allgatherv(own, [every, lengths])
        ends = np.cumsum(lengths)
        return [json.loads(every[end - n:end].tobytes()) for n, end in zip(lengths, ends)]

    def summed(self, tally):
        keys = sorted(tally.sums)            # a checkpoint's are in another order
        return Tally(dict(zip(keys, self.total(*map(tally.sums.get, keys)), strict=True)))

    def pooled(self, tally):
        whole = self.summed(tally)
        return whole if self.leads else Tally()

    def lines(self, lines):
        return sum(self.gather(list(lines)), []) if self.total(len(lines)) != [0] else lines

    def must_divide(self, batch_size):
        rest = batch_size % self.size
        if rest:
            fits = [n for n in (batch_size - rest, batch_size - rest + self.size) if n]
            raise console.Mistake(f"--batch-size {batch_size}: {self.size} ranks cannot share it "
                                  f"equally; {' or '.join(map(str, fits))} would do")

    def _first(self, make, args):
        """Return ``make(*args)`` on rank 0; where that fails, all ranks fail, and it says why."""
        made = None
        try:
            made = make(*args) if self.leads else None
        except Exception:
            self.gather(False)
            raise
        if not self.gather(True)[0]:
            raise console.Mistake("rank 0 could not go on")
        return made

    def resumed(self, find, *args):
        path, arrays, meta = self._first(find, args) or (None, None, None)
        heads = arrays and {name: [a.dtype.str, a.shape] for name, a in arrays.items()}
        path, meta, heads = self.gather([path and str(path), meta, heads])[0]
        if path is None:
            return None, None, None
        whole = {}
        for name, (dtype, shape) in heads.items():
            whole[name] = (np.ascontiguousarray(arrays[name]).reshape(shape) if self.leads
                           else np.empty(shape, dtype))
            with self._waiting("the checkpoint"):
                self._world.Bcast(whole[name].reshape(-1).view(np.uint8), 0)
        return Path(path), whole, meta

    def folder(self, make, *args):
        run = self._first(make, args)
        path = self.gather(run and str(run.path))[0]
        return run or Elsewhere(path)

    @contextlib.contextmanager
    def first_alone(self):
        for turn in (True, False):
            if turn == self.leads:
                yield
            self.gather("done")

    # ---- gradients and weights

    def gpus(self, args):
        if args.gpus:
            raise console.Mistake(f"--gpus {args.gpus}: with --distributed each rank takes the "
                                  "card of its own number on its machine; leave it out")
        count = 0 if args.backend == "numpy" else device_count()
        return str(self.local_rank % count) if count else None

    def use(self, device):
        kinds = self.gather(device.kind)
        if len(set(kinds)) > 1:
            raise console.Mistake(f"the ranks run on {', '.join(kinds)}: name one --backend for "
                                  "all")
        if device.kind == "cpu":
            return ""
        cards = self.gather([self._machine, nccl.card(device), nccl.missing(device)])
        why = next((card[2] for card in cards if card[2]), "")
        if len({tuple(card) for card in cards}) < self.size:
            why = "ranks share a card"
        if why:
            return f"{why}: gradients are summed on the hosts, by MPI"
        identity = self.gather(nccl.new_identity(device).hex() if self.leads else "")[0]
        with self._waiting("NCCL's ring"):
            self._ring = nccl.Ring(device, self.rank, self.size, bytes.fromhex(identity))
        return "gradients are summed between the cards, by NCCL"

    def average(self, params, share):
        self._buckets = self._buckets or buckets(params, self.size)
        for bucket in self._buckets:
            bucket.fill(share)
            if self._ring:
                self._ring.sum_(bucket.flat)
            elif bucket.device.kind == "cpu":
                self._sum(bucket.flat)
            else:
                host = bucket.device.fetch(bucket.flat).result()
                self._sum(host)
                with bucket.device.scope():
                    bucket.flat[...] = bucket.device.array(host)
            bucket.hand_out()

    def _sum(self, flat):
        """Sum over the ranks in place: each adds up a part, and hands it to all as it is."""
        own = np.empty(len(flat) // self.size, flat.dtype)
        with self._waiting("their gradients"):
            self._world.Reduce_scatter_block(flat, own)
            self._world.Allgather(own, flat)

    def must_match(self, step, net):
        named = list(net.named_parameters())
        rows = self.gather([checksum(p) for _, p in named])
        usual = Counter(map(tuple, rows)).most_common(1)[0][0]
        odd = [rank for rank, row in enumerate(rows) if tuple(row) != usual]
        if odd:
            names = [name for (name, _), *sums in zip(named, *rows) if len(set(sums)) > 1]
            usual = next(rank for rank in range(self.size) if rank not in odd)
            raise Mismatch(
                f"after step {step:,} the weights of rank {', '.join(map(str, odd))} are not those "
                f"of rank {usual}: {', '.join(names[:3])}"
                + f" and {len(names) - 3} more" * (len(names) > 3))

    def command(self, *arguments):
        return (f"mpiexec -n {self.size} "
                f"{console.command(*arguments, '--distributed', 'mpi')}")
