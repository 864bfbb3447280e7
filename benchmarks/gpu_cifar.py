#!/usr/bin/env python
"""The `80sec` net against its name: seconds of training on CIFAR-10 until it errs on at most 26 %.

    python benchmarks/gpu_cifar.py --data DIR        what gpu.py --cifar DIR starts

It took a GTX 580 80 seconds in 2012. The pictures are read before the clock starts, as they were
then; all else that training does counts, and validation is told apart.
"""
import sys
import time

import tinyalex as ta
from serving import serve
from tinyalex import functional as F
from tinyalex import models, optim
from tinyalex.data import Loader, open_dataset, statistics
from tinyalex.train import console, evaluate, restore

GOAL, YEAR_2012 = 26.0, 80.0      # percent, and the seconds that a GTX 580 took
SIZE = 32                         # of the pictures, in pixels
WORKERS = 4                       # threads that prepare batches


class Race:
    """A net that trains by the recipe of `80sec`, an epoch at a time.

    Parameters
    ----------
    folder : str
        As data.open_dataset takes it.
    device : Device or str

    Attributes
    ----------
    reading : float
        Seconds until all pictures were in memory.
    """

    def __init__(self, folder, device="cuda:0"):
        start = time.perf_counter()
        self.device = ta.Device(device)
        self.train, val = open_dataset(folder, SIZE)
        self.begin()
        augment = restore.augment(self.recipe, statistics(self.train))
        self.loader, self.val_loader = (
            Loader(pictures, self.recipe.batch_size, augment, shuffle=shuffle, workers=WORKERS,
                   mode=mode, device=self.device)
            for pictures, shuffle, mode in ((self.train, True, "train"), (val, False, "center")))
        for loader in (self.loader, self.val_loader):
            for batch in loader.batches(0):
                last = batch
        self.reading = time.perf_counter() - start
        self.step(last)                              # kernels are compiled
        self.begin()

    def begin(self):
        """Make the net and its optimizer anew."""
        ta.manual_seed(0)
        self.net, self.recipe = models.build("80sec", len(self.train.classes),
                                             devices=(self.device,))
        r = self.recipe
        self.optimizer = optim.SGD(self.net.parameters(), r.lr, r.momentum, r.weight_decay,
                                   r.bias_lr)
        self.schedule = optim.lr_scheduler.MultiStepLR(
            self.optimizer, [round(share * r.epochs) for share in r.milestones])
        self.number = 0

    def step(self, batch):
        """Launch a step of training."""
        loss = F.cross_entropy(self.net(evaluate.shown(batch.images)), batch.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self):
        """Train for an epoch, then measure; returns the seconds of both, and the error."""
        self.net.train()
        waited, start = self.loader.waited, time.perf_counter()
        for batch in self.loader.batches(self.number):
            self.step(batch)
        self.device.synchronize()
        trained = time.perf_counter()
        score = evaluate.measure(self.net, self.val_loader.batches(0))
        self.number += 1
        self.schedule.step()
        return {"epoch": self.number, "seconds": trained - start,
                "waited": self.loader.waited - waited,
                "validation": time.perf_counter() - trained, "error": score.top1}


def main(argv=None):
    """Be the worker that trains."""
    flags = console.Parser(prog="gpu_cifar.py", description="Train 80sec; gpu.py starts it.")
    flags.add_argument("--data", metavar="DIR", required=True)
    race = Race(flags.parse_args(argv).data)
    serve({"epoch": race.epoch},
          {"reading": race.reading, "pictures": len(race.train), "epochs": race.recipe.epochs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
