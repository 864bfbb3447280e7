"""One rank of a tiny run, in float64: what tests/test_distributed.py starts with mpiexec.

    mpiexec -n 2 python worker.py '{"folder": "...", "steps": 7, "fault": "hang"}'

Each rank leaves its weights and the pictures it was shown in FOLDER/rank-R-of-N.npz.
"""
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tinyalex as ta
import tiny_runs
from tinyalex import nn
from tinyalex.data import BrokenPicture
from tinyalex.train import parallel, restore
from tinyalex.train.trainer import Trainer

FAULTY = 1               # the rank on which a planted fault comes, where there are two


class Wide(nn.Module):
    """A net that is shown float32 pictures and computes in float64, where sums hardly round."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_runs.net().double()

    def forward(self, x):
        return self.inner(ta.Tensor(x.data.astype(np.float64)))


class Pictures(type(tiny_runs.dataset(1))):
    """Remembers which pictures it was asked for; some are broken."""

    broken = ()

    def picture(self, i):
        self.shown.append(i)
        if i in self.broken:
            raise BrokenPicture(f"picture {i}", "planted")
        return super().picture(i)


def pictures(count, seed=0, broken=()):
    whole = tiny_runs.dataset(count, seed)
    whole.__class__, whole.shown, whole.broken = Pictures, [], tuple(broken)
    return whole


def plant(fault, trainer, step):
    """Let a fault come on one rank, or that of all on all, after a step."""
    ranks = trainer.ranks
    if fault is None or ranks.rank != min(FAULTY, ranks.size - 1) and fault != "diverge":
        return
    plain = Trainer._train_on

    def faulty(self, batch):
        plain(self, batch)
        if self.step == step:
            FAULTS[fault](self)

    Trainer._train_on = faulty


def fail(trainer):
    raise ValueError("planted")


def flip(trainer):
    trainer.net.inner[0].weight.data.reshape(-1).view(np.uint8)[0] ^= 1


def diverge(trainer):
    trainer._diverged("planted")


def interrupt(trainer):
    os.kill(os.getpid(), signal.SIGINT)


FAULTS = {
    "raise": fail, "flip": flip, "diverge": diverge, "interrupt": interrupt,
    "hang": lambda trainer: time.sleep(1000),
    "freeze": lambda trainer: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda trainer: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda trainer: sys.exit(0),
}


def main(argv):
    """Train as told; rank 0 prints the last score."""
    told = json.loads(argv[0])
    folder = Path(told["folder"])
    ranks = parallel.start("mpi", told.get("watchdog", 60))
    found = (None, None, None)
    if told.get("resume"):
        found = ranks.resumed(restore.read, folder / "run")
    ta.manual_seed(0)
    make = tiny_runs.RunFolder
    run = ranks.folder(lambda: make(folder / "run", resume=found[0] is not None))
    train, val = (pictures(37, broken=told.get("broken", ())), pictures(10, seed=1))
    trainer = Trainer(Wide(), tiny_runs.RECIPE, train, val, run, workers=0, print_freq=2,
                      steps=told.get("steps", 10), resume=found[0] and found[1:], ranks=ranks,
                      check_freq=told.get("check_freq", 1))
    trainer._draw = lambda finished=False: None
    plant(told.get("fault"), trainer, told.get("at", 4))
    score = trainer.fit()
    ranks.finish()
    np.savez(folder / f"rank-{ranks.rank}-of-{ranks.size}.npz", shown=train.shown,
             score=[] if score is None else [score.loss, score.top1, score.pictures],
             **{f"model/{k}": v for k, v in trainer.net.state_dict().items()})
    print(f"step {trainer.step}, {score}, {len(trainer.skipped)} skipped")
    return 0 if score else 130


if __name__ == "__main__":
    sys.exit(parallel.run(main, "worker.py", sys.argv[1:]))
