"""One rank that sums gradients on a card of the stand-in: by the hosts, or by a stand-in for NCCL.

    mpiexec -n 2 python averages.py shared|nccl|missing
"""
import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cards
import numpy as np
import standin
from tinyalex import nn
from tinyalex.device import nccl
from tinyalex.train import parallel

TYPES = {7: np.float32, 8: np.float64}


class Communicator:
    """What NCCL is asked for, done by MPI at once, as the host sees the stand-in's memory."""

    def __init__(self, size, identity, rank):
        from mpi4py import MPI

        assert identity == b"ring\x00" and (size, rank) == (MPI.COMM_WORLD.size,
                                                            MPI.COMM_WORLD.rank)
        self.MPI = MPI

    def allReduce(self, source, target, count, kind, operation, stream):  # noqa: N802
        assert operation == 0 and source == target and stream
        dtype = np.dtype(TYPES[kind])
        raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(source)
        self.MPI.COMM_WORLD.Allreduce(self.MPI.IN_PLACE, np.frombuffer(raw, dtype))


def main(argv):
    """Sum three parameters' gradients; every rank says what came out."""
    how = argv[0]
    ranks = parallel.start("mpi", 30)
    nccl.card = lambda device: "one" if how == "shared" else f"card {ranks.rank}"
    standin.cupy.cuda.nccl = SimpleNamespace(
        available=how != "missing", NcclCommunicator=Communicator, NCCL_FLOAT32=7,
        NCCL_FLOAT64=8, NCCL_SUM=0, get_unique_id=lambda: b"ring\x00")
    device = cards.card("cuda:8")
    said = ranks.use(device)
    params = [nn.Parameter(np.zeros(shape, np.float32), device) for shape in ((3, 5), (2,), ())]
    for i, p in enumerate(params[:2]):                   # the last has none
        p.grad = device.array(np.full(p.shape, 2.0 ** (i + ranks.rank), np.float32))
    ranks.average(params, (1 + ranks.rank) / 4)
    ranks.must_match(0, SimpleNamespace(named_parameters=lambda: enumerate(params)))
    found = [sorted(set(device.numpy(p.grad).ravel().tolist())) for p in params]
    for one in ranks.gather([said, found]):
        print(one)
    ranks.finish()
    return 0


if __name__ == "__main__":
    sys.exit(parallel.run(main, "averages.py", sys.argv[1:]))
