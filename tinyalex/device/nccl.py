"""Sums over the cards of many processes, which NCCL makes. CuPy is reached through the device.

NCCL only sums: who the processes are, and how the first of them tells the others the ring's
identity, is the affair of whoever started them.
"""


def missing(device):
    """Return why NCCL cannot be used from a card, in words, or ""."""
    nccl = getattr(device.xp.cuda, "nccl", None)
    return "" if getattr(nccl, "available", False) else "CuPy finds no NCCL library"


def new_identity(device):
    """Return the bytes that all processes of a new ring have to be given."""
    return bytes(device.xp.cuda.nccl.get_unique_id())


def card(device):
    """Return what tells a card from the others of its machine: its place on the bus."""
    return device.xp.cuda.runtime.deviceGetPCIBusId(device.index)


class Ring:
    """The cards of several processes, one each.

    Parameters
    ----------
    device : CudaDevice
        This process's. Sums are made on its one stream, so nothing else has to order them.
    rank, size : int
        Which of the processes this is, and how many there are.
    identity : bytes
        What :func:`new_identity` gave to one of them.
    """

    def __init__(self, device, rank, size, identity):
        self.device, self.nccl = device, device.xp.cuda.nccl
        with device.scope():
            self._ring = self.nccl.NcclCommunicator(size, identity, rank)

    def sum_(self, array):
        """Put the sum over all processes in the place of a contiguous array, on each of them.

        NCCL adds each element up once and hands the result round: all get the same bits.
        """
        kind = {"float32": self.nccl.NCCL_FLOAT32, "float64": self.nccl.NCCL_FLOAT64}
        with self.device.scope():
            self._ring.allReduce(array.data.ptr, array.data.ptr, array.size,
                                 kind[array.dtype.name], self.nccl.NCCL_SUM,
                                 self.device._stream.ptr)
