#!/usr/bin/env python
"""Say what is in pictures, by a net that was trained before.

    python examples/predict.py cat.jpg holidays/ --checkpoint runs/shapes-mini
"""
import itertools
import os
import shutil
import sys

import numpy as np

from tinyalex import viz
from tinyalex.data import BrokenPicture, read_picture
from tinyalex.data.pictures import SUFFIXES
from tinyalex.train import console, evaluate, restore
from tinyalex.train.console import Mistake, number

PROGRAM = "predict.py"
AT_ONCE = 32           # pictures read and shown to the net together


def parse(argv):
    parser = console.Parser(prog=PROGRAM, description="Say what is in pictures.")
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="+", help="a JPEG or PNG file, or a folder of them")
    add("--checkpoint", metavar="PATH", required=True, help="a checkpoint or a run's folder")
    add("--top", type=number(int, least=1), default=5, metavar="K", help="guesses; default: 5")
    add("--save", metavar="FILE", help="draw the pictures and guesses: .png, .svg or .pdf")
    add("--ten-crop", action="store_true", help="average over ten windows of each picture")
    console.add_device_flags(parser)
    args = parser.parse_args(argv)
    if args.save and not args.save.lower().endswith((".png", ".svg", ".pdf")):
        raise Mistake(f"--save {args.save}: expected a name that ends in .png, .svg or .pdf")
    return args


def main(argv=None):
    args = parse(argv)
    devices, note = console.choose_devices(args.backend, args.gpus, args.tf32, args.gpu_memory)
    print(note, end="\n" * bool(note))
    saved = restore.open_net(args.checkpoint, devices)
    prepare = saved.augment.ten if args.ten_crop else saved.augment.center
    device = devices[0] if devices[0].kind == "cuda" else None        # a GPU cuts windows itself
    files, kept, broken = files_of(args.images), [], 0
    while some := list(itertools.islice(files, AT_ONCE)):
        pictures = []
        for file in some:
            try:
                pictures.append((file, read_picture(file)))
            except BrokenPicture as problem:
                broken += 1
                print(f"{PROGRAM}: {problem}", file=sys.stderr)
        if not pictures:
            continue
        images = prepare([picture for _, picture in pictures], device=device)
        probabilities = evaluate.predict(saved.net, images)                    # (N, K)
        for (file, picture), row in zip(pictures, probabilities, strict=True):
            show(file, row, saved.classes, args.top)
            if args.save:
                kept.append((picture, row))
    if kept:
        save(args, kept, saved.classes)
    return 1 if broken else 0


def files_of(images):
    """Yield the files named, and those in the folders named, however deep."""
    for image in images:
        if not os.path.isdir(image):
            yield image
            continue
        found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(image)
                       for name in names if name.lower().endswith(SUFFIXES))
        if not found:
            raise Mistake(f"{image}: there is no {', '.join(SUFFIXES)} file in this folder")
        yield from found


def show(file, probabilities, classes, top):
    """Print the best guesses, each with a bar as long as its probability."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    wide = max(len(classes[k]) for k in best)
    room = max(10, min(40, shutil.get_terminal_size().columns - wide - 14))
    print(file)
    for k in best:
        print(f"  {classes[k]:{wide}}  {100 * probabilities[k]:5.1f} %  "
              f"{bar(probabilities[k], room)}".rstrip())


def bar(share, room, encoding=None):
    """A bar of `share` of `room` columns, to an eighth where the terminal has such characters."""
    eighths = round(8 * share * room)
    text = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    try:
        text.encode(encoding or sys.stdout.encoding or "ascii")
        return text
    except UnicodeEncodeError:
        return "#" * round(share * room)


def save(args, kept, classes):
    pictures, probabilities = zip(*kept)
    try:
        figure = viz.predictions(pictures, probabilities, classes, top=args.top)
        viz.save(figure, args.save)
    except ValueError as error:              # more pictures than a page holds
        raise Mistake(f"--save {args.save}: {error}") from None
    except OSError as error:                 # no such folder
        raise Mistake(f"--save {args.save}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(console.run(main, PROGRAM))
