#!/usr/bin/env python
"""One side of loader.py: a program that serves pictures in batches, on command.

    python benchmarks/loader_side.py torch --kind originals --source DIR --count 640

It keeps to as many cores as it is told, has a worker for each, and answers

    epoch       all pictures once: the seconds from asking for the first to having the last, those
                that the processors were busy, how many pictures there were, the shape of a batch
                and the mean color of the first one

PyTorch's side is what its users write: a Dataset that opens with Pillow, torchvision's transforms,
DataLoader with processes that stay from epoch to epoch. The four transforms are written down here,
so torchvision need not be there.
"""
import argparse
import multiprocessing
import os
import time

import numpy as np
from serving import serve

BATCH, SIZE, CROP = 128, 256, 224
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # as is usual
SCALE = 58.0                                    # of pixels to 255: as the deviation, one for all
MOST = 1000
KINDS = ("originals", "jpeg", "pixels")
SIDES = ("tinyalex", "torch")


def originals(source):
    """Return the names of the pictures in a folder: the first MOST, in order."""
    return sorted(name for name in os.listdir(source)
                  if name.lower().endswith((".jpg", ".jpeg", ".png")))[:MOST]


class TinyAlex:
    """tinyalex's Loader. With `bytes`, what it makes for a GPU, but in memory that is not pinned.
    """

    def __init__(self, args):
        from tinyalex.data import Augment, FileDataset, Loader, StoreDataset, Subset
        from tinyalex.device import Device

        if args.kind == "originals":
            names = originals(args.source)
            dataset = FileDataset(args.source, names, np.zeros(len(names)), ["any"], resize=SIZE)
        else:
            dataset = StoreDataset(args.source, "train")
        dataset = Subset(dataset, np.arange(args.count) % len(dataset))
        augment = Augment(CROP, 255 * MEAN.reshape(1, 1, 3), SCALE)
        self.loader = Loader(dataset, BATCH, augment, workers=args.cores)
        if args.bytes:
            self.loader.device = Device("cpu:0")

    def color(self, images):
        """Return the mean color of a batch, 0 to 255."""
        if not isinstance(images, np.ndarray):
            images = images.on("cpu:0").data
        return images.mean((0, 2, 3)) * SCALE + 255 * MEAN


class Torch:
    """PyTorch's DataLoader. With `bytes`, pixels stay uint8, for a card to convert."""

    def __init__(self, args):
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.loader = torch.utils.data.DataLoader(
            Pictures(torch, args), BATCH, shuffle=True, num_workers=args.cores,
            persistent_workers=True)

    def color(self, images):
        """Return the mean color of a batch, 0 to 255."""
        if images.dtype == self.torch.uint8:
            return images.double().mean((0, 2, 3)).numpy()
        return 255 * (images.mean((0, 2, 3)).numpy() * DEVIATION + MEAN)


class Pictures:
    """A Dataset of PyTorch: pictures of one kind, cropped and mirrored at random."""

    def __init__(self, torch, args):
        self.torch, self.args = torch, args
        self.mean, self.deviation = (torch.tensor(a, dtype=torch.float32).reshape(3, 1, 1)
                                     for a in (MEAN, DEVIATION))
        if args.kind == "originals":
            self.files = [os.path.join(args.source, name) for name in originals(args.source)]
        elif args.kind == "jpeg":
            self.index = np.load(os.path.join(args.source, "train-index.npy"))
            self.files = [os.open(os.path.join(args.source, f"train-{shard:06d}.tar"), os.O_RDONLY)
                          for shard in range(1 + int(self.index["shard"].max()))]
        else:
            self.pixels = np.load(os.path.join(args.source, "train.npy"), mmap_mode="r")

    def __len__(self):
        return self.args.count

    def __getitem__(self, i):
        picture = self.cropped_pixels(i) if self.args.kind == "pixels" else self.cropped_picture(i)
        tensor = self.torch.from_numpy(picture)                         # (S, S, 3)
        if self.torch.rand(1) < 0.5:
            tensor = tensor.flip(1)
        tensor = tensor.permute(2, 0, 1).contiguous()                   # (3, S, S)
        if not self.args.bytes:
            tensor = tensor.float().div(255).sub(self.mean).div_(self.deviation)
        return tensor, 0

    def cropped_picture(self, i):
        image = self.opened(i).convert("RGB")
        if self.args.kind == "originals":
            scale = SIZE / min(image.size)
            image = image.resize([round(side * scale) for side in image.size], resample=2)
        x, y = (self.place(side) for side in image.size)
        return np.array(image.crop((x, y, x + CROP, y + CROP)))

    def cropped_pixels(self, i):
        pixels = self.pixels[i % len(self.pixels)]
        y, x = (self.place(side) for side in pixels.shape[:2])
        return np.array(pixels[y:y + CROP, x:x + CROP])

    def opened(self, i):
        import io

        from PIL import Image
        if self.args.kind == "originals":
            return Image.open(self.files[i % len(self.files)])
        shard, offset, length, _ = self.index[i % len(self.index)].tolist()
        return Image.open(io.BytesIO(os.pread(self.files[shard], length, offset)))

    def place(self, side):
        return int(self.torch.randint(side - CROP + 1, (1,)))


def processor_time():
    """Return the seconds that all threads of this process and of its workers have computed."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        with open(f"/proc/{child.pid}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        seconds += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return seconds


def answer(side):
    """Return the commands of one side, as :func:`serving.serve` takes them."""
    def epoch():
        first, count = None, 0
        start, busy = time.perf_counter(), processor_time()
        for images, _ in side.loader:
            first = images if first is None else first
            count += len(images)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "busy": processor_time() - busy, "pictures": count,
                "shape": list(first.shape),
                "color": [float(c) for c in side.color(first)]}

    return {"epoch": epoch}


def main():
    """Be what the arguments say."""
    parser = argparse.ArgumentParser(description="One side of a pair; loader.py starts it.")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--source", metavar="DIR", required=True, help="of pictures, or a store")
    parser.add_argument("--count", type=int, required=True, help="pictures in an epoch")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--bytes", action="store_true", help="leave the arithmetic to a card")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.cores])
    serve(answer({"tinyalex": TinyAlex, "torch": Torch}[args.side](args)))


if __name__ == "__main__":
    main()
