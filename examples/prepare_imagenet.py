#!/usr/bin/env python
"""Prepare pictures once, to be read for weeks: ImageNet's archives, or any folder, become a store.

    python examples/prepare_imagenet.py --source ARCHIVES --output imagenet-256
    python examples/train_imagenet.py --data imagenet-256 --model alexnet

ARCHIVES holds ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz;
they are read where they lie. A run that was stopped, or killed, goes on when it is begun again.
"""
import os
import re
import shlex
import sys
import time

from tinyalex.data import DataError, prepare
from tinyalex.data.archives import find_archives, verify
from tinyalex.data.sources import open_source
from tinyalex.data.store import FORMATS
from tinyalex.train import console
from tinyalex.train.console import Mistake, number

PROGRAM = "prepare_imagenet.py"
FLAGS = {"source": "--source", "where": "--source", "output": "--output", "size": "--size",
         "quality": "--quality", "shard_size": "--shard-size", "workers": "--workers"}
SAY_SECONDS = 30                # between two lines where there is no bar to be seen


def parse(argv):
    parser = console.Parser(
        prog=PROGRAM, description="Prepare pictures once, to be read for weeks.",
        epilog="A run that was stopped, or killed, goes on when it is begun again.")
    add = parser.add_argument
    whole = number(int, least=1)
    add("--source", metavar="PATH", nargs="+", required=True, help="the folder with ImageNet's "
        "three archives, or these one by one; or a folder as train_imagenet.py --data takes it")
    add("--output", metavar="STORE", required=True, help="a new folder for what is made")
    add("--size", type=whole, default=256, metavar="PIXELS", help="the shorter side is brought to "
        "it and the central square kept; default: 256")
    add("--format", choices=FORMATS, default="webdataset", help="JPEGs in tar shards (the "
        "default; for all of ImageNet about 45 GB), or one uint8 .npy file for each split (252 "
        "GB; no decoding in training)")
    add("--quality", type=whole, metavar="Q", help="of the JPEGs, 1 to 100; default: 95")
    add("--shard-size", type=whole, metavar="N", help="pictures in a shard; default: 10000, or "
        "what makes about a gigabyte")
    add("--workers", type=whole, default=cores(), metavar="N",
        help="threads; the store does not depend on them; default: one for each processor core")
    add("--verify", action="store_true", help="compare the archives' MD5 with the official ones "
        "first, which reads 155 GB")
    args = parser.parse_args(argv)
    if args.quality and args.format != "webdataset":
        raise Mistake(f"--quality is that of JPEGs, of which --format {args.format} has none")
    return args


def main(argv=None):
    args = parse(argv)
    try:
        return make(args)
    except DataError as error:           # say it as the command line calls it
        name, text = re.fullmatch(rf"(?:({'|'.join(FLAGS)})(?:=|: ))?(.*)", str(error)).groups()
        raise Mistake(f"{FLAGS[name]} {text}" if name else text) from None
    except KeyboardInterrupt:
        print("stopped; what is finished stays, and this goes on from there:\n"
              f"  {console.command(*(argv or sys.argv[1:]))}", flush=True)
        return console.INTERRUPTED


def make(args):
    archives = find_archives(args.source)
    if archives and args.verify:
        with Watch("comparing checksums", unit="B", unit_scale=True) as watch:
            verify(archives, watch)
        print("the MD5 of each archive is the official one")
    elif args.verify:
        raise Mistake("--verify: there are no archives of ImageNet in --source to compare")
    with Watch("reading headers", unit=" classes") as watch:
        train, val = open_source(args.source, args.size, args.workers, watch)
    print(f"{' '.join(args.source)}: {len(train):,} pictures to learn from, {len(val):,} to "
          f"validate, {len(train.classes):,} classes", *filter(None, [train.note]), sep="; ",
          flush=True)
    with Watch("preparing", unit=" pictures") as watch:
        told = prepare(train, val, args.output, args.size, args.format, args.quality or 95,
                       args.workers, args.shard_size, watch)
    left_out = sum(map(len, told["left_out"].values()))
    if left_out:
        print(f"{left_out:,} of {len(train) + len(val):,} pictures could not be read and were left "
              "out; store.json names them")
    counts, nbytes = told["counts"], sum(shard["bytes"] for split in told["shards"].values()
                                         for shard in split)
    print(f"{args.output}: {counts['train']:,} + {counts['val']:,} pictures of {told['size']} x "
          f"{told['size']}, {nbytes / 1e9:,.2f} GB; train on them with\n"
          f"  python examples/train_imagenet.py --data {shlex.quote(args.output)} --model alexnet")
    return 0


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Watch:
    """A progress bar on a terminal; elsewhere a line now and then."""

    def __init__(self, what, **settings):
        from tqdm import tqdm

        self.what, self.settings, self.make = what, settings, tqdm
        self.bar, self.first, self.start, self.said = None, 0, time.monotonic(), time.monotonic()

    def __call__(self, done, total, line=""):
        if self.bar is None:             # a run that goes on begins in the middle
            self.first, self.start = done, time.monotonic()
            self.bar = self.make(total=total, initial=done, desc=self.what, disable=None,
                                 leave=False, dynamic_ncols=True, **self.settings)
        self.bar.update(done - self.bar.n)
        if self.bar.disable:
            self.bar.n = done            # a bar that is not shown does not count
            line = line or self._now_and_then(done, total)
        if line:
            self.bar.write(f"  {line}", file=sys.stdout)
            sys.stdout.flush()

    def _now_and_then(self, done, total):
        if time.monotonic() - self.said < SAY_SECONDS or done == self.first:
            return ""
        self.said = time.monotonic()
        left = int((total - done) * (self.said - self.start) / (done - self.first))
        return (f"{self.what}: {done:,} of {total:,}, {left // 3600}:{left // 60 % 60:02d}:"
                f"{left % 60:02d} left")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()


if __name__ == "__main__":
    sys.exit(console.run(main, PROGRAM))
