"""The smallest training run that has everything: three classes, dropout, crops and color noise."""
import json

import numpy as np

import tinyalex as ta
from tinyalex import models, nn
from tinyalex.data import ArrayDataset
from tinyalex.train.rundir import RunFolder
from tinyalex.train.trainer import Trainer

CLASSES = ("rot", "grün", "blue")
RECIPE = models.Recipe("tiny", image_size=10, batch_size=8, epochs=3, lr=0.01, input_scale=64.0,
                       color_noise=0.1, milestones=(0.7,))
EPOCH = 5                                # steps: 37 pictures in batches of 8, the last one of 5
CLOCK = "images_per_s", "waiting_for_data"


def dataset(count, seed=0, classes=CLASSES):
    """Noise with one channel brighter: the class."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 160, (count, 12, 12, 3), np.uint8)
    labels = np.arange(count) % len(classes)
    pictures[np.arange(count), ..., labels % 3] += 95
    return ArrayDataset(pictures, labels, classes)


def net(classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
                         nn.Linear(64, classes))


def trainer(folder, resume=None, seed=0, recipe=RECIPE, train=None, val=None, **settings):
    """A Trainer in `folder`, its net built from `seed`."""
    ta.manual_seed(seed)
    run = RunFolder(folder, resume=resume is not None)
    settings = {"workers": 0, "print_freq": 2, **settings}
    return Trainer(settings.pop("net", None) or net(), recipe, train or dataset(37),
                   val or dataset(10, seed=1), run, resume=resume, **settings)


def log(folder):
    """The rows of a run's log, without what a clock had a part in."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key not in CLOCK} for row in rows]


def saved(folder):
    """The names of a run's checkpoints; a name holds the hash of all that is in it."""
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
