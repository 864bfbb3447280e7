"""Many ranks, one run: ``mpiexec -n 8 python examples/train_imagenet.py --distributed mpi``.

A rank is a process with one device that holds both towers. Each takes its share of every global
batch; the gradients are summed over the ranks, and all make the same step. MPI starts the ranks
and sums on CPUs; between cards NCCL sums. Rank 0 alone logs, prints and saves.

What is promised: the order of the pictures and all that is drawn at random depend on a picture's
place in the global batch, never on the rank, so that any number of ranks trains to the same
weights, up to the order in which floats are summed. A sum is made once and handed to all ranks, so
all hold the same bits, which is checked now and then. A rank that fails or hangs ends the whole
job, with a message: restart it from the last checkpoint, with as many ranks as there are.
"""
import sys
import traceback

from . import console
from .ranks import SOLO, Mismatch, Ranks

__all__ = ["SOLO", "Mismatch", "run", "start"]

_here = SOLO             # what `start` has made of this process


def start(kind=None, watchdog=600):
    """Return the ranks that this process is one of.

    Parameters
    ----------
    kind : {None, "mpi"}
        None: this process trains alone.
    watchdog : float
        Seconds without progress after which the job ends.

    Returns
    -------
    Solo or Ranks

    Raises
    ------
    Mistake
        mpi4py, or an MPI for it to load, is missing.
    """
    global _here
    if kind is None:
        return SOLO
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise console.Mistake(f"--distributed mpi: {str(error).splitlines()[0]}; "
                              "pip install -e '.[mpi]' brings mpi4py and an MPI") from None
    _here = Ranks(MPI, watchdog)
    return _here


def run(main, program, argv=None):
    """Run a program as :func:`console.run` does; a fault of one rank ends all of them.

    Examples
    --------
    >>> run(lambda argv: len(argv), "count.py", ["a"])
    1
    """
    def told(argv):
        try:
            return main(argv)
        except BaseException:
            _here.failing()                  # before anything is said about it
            raise

    try:
        code = console.run(told, program, argv)
    except Exception as error:
        if _here is SOLO:
            raise
        what, where = f"{type(error).__name__} ends all ranks: {error}", traceback.format_exc()
        if isinstance(error, Mismatch):
            what, where = str(error), ""
        sys.stderr.write(f"{where}{program}{console.speaker}: {what}\n")     # in one piece
        code = 1
    _here.leave(code)
    return code
