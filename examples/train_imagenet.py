#!/usr/bin/env python
"""Train AlexNet, or a small sister of it, on pictures.

    python examples/train_imagenet.py                                  a minute, no data, no GPU
    python examples/train_imagenet.py --data imagenet --model alexnet --backend cupy --gpus 0,1
    python examples/train_imagenet.py --resume runs/shapes-mini        go on after Ctrl-C
    python examples/train_imagenet.py --test-only --resume runs/shapes-mini --ten-crop
    mpiexec -n 8 python examples/train_imagenet.py --distributed mpi   a rank for each GPU
"""
import sys
import time

import numpy as np

import tinyalex as ta
from tinyalex import functional as F
from tinyalex import models, optim
from tinyalex.data import Loader, open_dataset
from tinyalex.device import OutOfMemory
from tinyalex.train import checkpoint, console, evaluate, options, parallel, restore, surgery
from tinyalex.train.console import Mistake, number
from tinyalex.train.trainer import Diverged, Trainer

PROGRAM = "train_imagenet.py"


def parse(argv):
    parser = console.Parser(
        prog=PROGRAM, description="Train AlexNet, or a small sister of it, on pictures.",
        epilog="What is not given comes from the model's recipe, or from the resumed checkpoint.")
    add = parser.add_argument
    add("--data", metavar="WHAT", help="shapes (drawn by the program itself; the default), "
        "cifar10 or tinyimagenet (fetched once, unless $TINYALEX_DATA, ./data or "
        "~/.cache/tinyalex has it or TINYALEX_OFFLINE=1 is set), or a folder with "
        "train/CLASS/*.jpg and val/CLASS/*.jpg, or what prepare_imagenet.py has made")
    add("--model", choices=models.NAMES, help="default: mini")
    add("--variant", help="paper (the default) or source2012: what the text or the code does")
    console.add_device_flags(parser)
    rate, whole = number(above=0), number(int, least=1)
    add("--batch-size", type=whole, metavar="N", help="with --distributed, of all ranks together")
    add("--lr", type=rate, help="learning rate; with --resume, from there on")
    add("--bias-lr", type=rate, metavar="LR", help="that of the biases, where it differs")
    add("--lr-epochs", type=console.epochs, metavar="E,E", help="epochs after which the rate falls "
        "to a tenth, or never; instead of the recipe's schedule")
    add("--lr-warmup-epochs", type=number(least=0), metavar="E",
        help="epochs over which the rate climbs to what it is")
    add("--scale-lr", action="store_true", help="--lr is meant for the recipe's batch: multiply it "
        "by how much larger --batch-size is")
    add("--momentum", type=number(least=0))
    add("--weight-decay", type=number(least=0), metavar="DECAY")
    add("--dropout", type=number(least=0, below=1), metavar="P",
        help="probability of silence in fc6, fc7")
    add("--init", choices=("variant", "he"), help="how alexnet's weights start: as the variant has "
        "it, or at N(0, sqrt(2 / fan-in)), which wants --input-scale 64")
    add("--input-scale", type=rate, metavar="S", help="pixels minus the mean are divided by it")
    add("--no-augment", dest="augment", action="store_const", const=False,
        help="centers only: no random crops, no mirror, no color noise")
    add("--epochs", type=whole)
    add("--max-steps", type=whole, metavar="N", help="the run's length, instead of --epochs")
    add("--image-size", type=whole, metavar="PIXELS", help="side of the net's input")
    add("--num-classes", type=number(int, least=2), metavar="N", help="for --dry-run without data")
    add("--seed", type=number(int, least=0), metavar="N", help="default: 0")
    add("--workers", type=number(int, least=0), metavar="N",
        help="threads that prepare pictures; default: 2")
    add("--print-freq", type=number(int, least=0), metavar="STEPS",
        help="between two rows of the log; default: 50")
    add("--save-freq", type=number(int, least=0), metavar="STEPS",
        help="between two checkpoints; each epoch ends with one besides")
    add("--distributed", choices=("mpi",), help="train on all ranks that mpiexec has started")
    add("--watchdog", type=rate, default=600, metavar="SECONDS",
        help="without progress, after which all ranks end; default: 600")
    add("--check-freq", type=whole, default=100, metavar="STEPS",
        help="between two looks whether all ranks hold the same weights; default: 100")
    add("--output-dir", metavar="DIR", help=f"default: a new folder in {options.RUNS}/")
    add("--resume", metavar="auto|PATH", help="a checkpoint or a run's folder to go on from; "
        "auto: the last run of this name, or a new one where there is none")
    add("--init-from", metavar="PATH", help="begin with a checkpoint's weights; the last layer "
        "begins anew where the classes are other ones")
    add("--finetune", action="store_true", default=None, help="let the last layer alone learn")
    add("--freeze", metavar="LAYERS", help="these do not learn: conv1,conv2")
    add("--ten-crop", action="store_true", help="measure by ten windows of each picture, too")
    add("--test-only", action="store_true", help="measure --resume's net, and stop")
    add("--average", metavar="PATH", nargs="+", help="with --test-only: several checkpoints' "
        "mean prediction")
    add("--dry-run", action="store_true", help="show the net and its memory, make one step on "
        "noise, write nothing")
    args = parser.parse_args(argv)
    if args.average and not args.test_only:
        raise Mistake("--average only measures: add --test-only")
    if args.test_only and not (args.average or args.resume):
        raise Mistake("--test-only needs a checkpoint: --resume PATH or --average PATH PATH ...")
    if args.resume and args.init_from:
        raise Mistake("--init-from begins a run, --resume goes on with one: leave one of them out")
    if args.resume and args.dry_run:
        raise Mistake("--dry-run shows a new run: leave --resume out")
    if args.distributed and (args.test_only or args.dry_run):
        raise Mistake("--distributed trains: leave it out with --test-only and --dry-run")
    return args


def main(argv=None):
    args = parse(argv)
    return test(args) if args.test_only else dry_run(args) if args.dry_run else train(args)


def train(args):
    ranks = parallel.start(args.distributed, args.watchdog)       # one, where it is None
    new_lr, new_bias_lr = args.lr, args.bias_lr
    path, arrays, meta = ranks.resumed(options.find_resumed, args)
    recipe = options.resumed_recipe(args, path, meta) if path else options.new_recipe(args)
    ranks.must_divide(recipe.batch_size)
    devices = choose_devices(args, ranks)
    ta.manual_seed(args.seed)
    with ranks.first_alone():                                     # it may have to fetch them
        train_set, val_set = open_dataset(args.data, recipe.image_size, recipe.resize, args.seed)
    classes = count_classes(args, train_set)
    with ranks.folder(options.run_folder, args, path) as run:
        net = prepare(args, options.build(recipe, classes, devices), new=path is None)
        table = models.summary(net, recipe.image_size)
        trainer = Trainer(net, recipe, train_set, val_set, run, options.to_keep(args),
                          steps=args.max_steps, workers=args.workers, print_freq=args.print_freq,
                          save_freq=args.save_freq, resume=path and (arrays, meta),
                          warmup=args.lr_warmup_epochs or 0, ranks=ranks,
                          check_freq=args.check_freq)
        if path:
            trainer.optimizer.lr = new_lr or trainer.optimizer.lr
            trainer.optimizer.bias_lr = new_bias_lr or trainer.optimizer.bias_lr
        where = f"{ranks.size} ranks" if ranks.size > 1 else ", ".join(d.name for d in devices)
        print(f"{recipe.name} ({recipe.variant}) on {where}: "
              f"{table.total['parameters']:,} parameters")
        print(f"{args.data}: {len(train_set):,} pictures to learn from, {len(val_set):,} held out, "
              f"{classes} classes", *filter(None, [train_set.note]), sep="; ")
        print(f"{trainer.steps:,} steps of {recipe.batch_size} pictures"
              + (f", going on after step {trainer.step:,}" if path else "") + f"; see {run.path}",
              flush=True)
        begun = trainer.step
        try:
            score = trainer.fit()
        except OutOfMemory as error:
            ranks.failing()
            text = options.too_large(error, table, recipe.batch_size // ranks.size)
            if trainer.step == begun:
                raise Mistake(text) from None
            print(f"{PROGRAM}: {text}; {trainer.last_checkpoint()}", file=sys.stderr)
            return 1
        except Diverged as error:
            ranks.failing()
            lower = "--lr", f"{trainer.optimizer.lr / 10:g}"
            saved = checkpoint.pointed(run.checkpoints)
            advice = ranks.command("--resume", saved, *lower) if saved else " ".join(lower)
            print(f"{PROGRAM}: {error}. Most often the learning rate is too high: try\n  {advice}",
                  file=sys.stderr)
            return 1
    if score is None:
        ranks.finish()
        print(f"stopped after step {trainer.step:,} of {trainer.steps:,}, and saved; go on with\n"
              f"  {ranks.command('--resume', run.path)}", flush=True)
        return console.INTERRUPTED
    if trainer.skipped:
        print(f"{len(trainer.skipped):,} pictures could not be read and were left out")
    print(f"left in {run.path}: curves.png, filters.png, predictions.png, log.jsonl, checkpoints/")
    if args.ten_crop:
        print(f"center: {score}")
        score = evaluate.measure(net, batches(val_set, trainer.augment, recipe, args, "ten",
                                              devices[0], ranks), ranks)
        run.log({"kind": "ten-crop", "step": trainer.step, **score.row()})
    ranks.finish()
    print(score)
    return 0


def test(args):
    """Measure one checkpoint, or the mean prediction of several."""
    devices = choose_devices(args)
    paths = args.average or [options.find_resumed(args)[0]]
    if paths == [None]:
        raise Mistake("--resume auto: there is no checkpoint to test")
    saved = [restore.open_net(path, devices) for path in paths]
    meta, recipe = saved[0].meta, saved[0].recipe
    data = args.data or meta["options"].get("data", "shapes")
    _, val_set = open_dataset(data, recipe.image_size, meta["resize"], meta["random"]["seed"])
    for one in saved:
        if one.classes != val_set.classes:
            raise Mistake(f"{one.path}: knows {len(one.classes)} classes, {data} has "
                          f"{len(val_set.classes)}, or they are called otherwise")
    for mode in ("center", "ten")[:1 + args.ten_crop]:
        score = evaluate.measure_average(
            (one.net, batches(val_set, one.plain, one.recipe, args, mode, devices[0]))
            for one in saved)
        print(f"{', '.join(str(one.path) for one in saved)}: {score.pictures:,} pictures by "
              f"{'ten windows' if mode == 'ten' else 'their center'}, loss {score.loss:.3f}")
        print(score, flush=True)
    return 0


def dry_run(args):
    """Show what a run would cost; make one step on noise."""
    data, recipe = args.data, options.new_recipe(args)
    devices, n, size = choose_devices(args), recipe.batch_size, recipe.image_size
    classes = args.num_classes or {"alexnet": 1000, "mini": 16}.get(args.model, 10)
    if data:
        classes = count_classes(args, open_dataset(args.data, size, recipe.resize, args.seed)[0])
    ta.manual_seed(args.seed)
    net = prepare(args, options.build(recipe, classes, devices))
    table = models.summary(net, size)
    print(f"{recipe.name} ({recipe.variant})\n{table}\nabout {table.memory(n) / 1e6:,.0f} MB for a "
          f"step of {n} pictures; one on noise:", flush=True)
    rng = ta.random.generator("dry-run")
    images = rng.standard_normal((n, 3, size, size), np.float32) * (70 / recipe.input_scale)
    labels = rng.integers(0, classes, n)
    optimizer = optim.SGD(net.parameters(), recipe.lr, recipe.momentum, recipe.weight_decay)
    for device in devices:
        device.ledger.reset()
    start = time.perf_counter()
    try:
        loss = F.cross_entropy(net(images.astype(np.float32)), labels)
        loss.backward()
        optimizer.step()
    except OutOfMemory as error:
        raise Mistake(options.too_large(error, table, n)) from None
    for device in devices:
        device.synchronize()
    seconds = time.perf_counter() - start
    peaks = ", ".join(f"{d.name} {d.ledger.peak_bytes / 1e6:,.0f} MB" for d in devices)
    print(f"loss {loss.item():.3f} (ln {classes} = {np.log(classes):.3f}) in {seconds:.2f} s; at "
          f"most {peaks}; nothing was written")
    for device in devices:
        if device.kind == "cuda" and not device.alias:        # which shares its card's memory
            print(pool(device))
    return 0


def pool(device):
    """Say how much of a card is taken."""
    memory = device.memory()
    used, held, room = (f"{nbytes / 1e6:,.0f} MB" for nbytes in (
        memory["used_bytes"], memory["held_bytes"], memory["limit_bytes"] or memory["total_bytes"]))
    return f"{device.name}: {used} in use and {held} held, of {room}"


def choose_devices(args, ranks=parallel.SOLO):
    devices, note = console.choose_devices(args.backend, ranks.gpus(args), args.tf32,
                                           args.gpu_memory)
    for line in filter(None, (note, ranks.use(devices[0]))):
        print(line)
    return devices


def count_classes(args, dataset):
    count = len(dataset.classes)
    if args.num_classes not in (None, count):
        raise Mistake(f"--num-classes {args.num_classes}: {args.data} has {count}")
    return count


def prepare(args, net, new=True):
    """Take over weights and freeze layers, as the flags say."""
    frozen = (args.freeze.split(",") if args.freeze else []) + ["but-last"] * bool(args.finetune)
    try:
        if args.init_from and new:
            path, fresh = surgery.take_weights(net, args.init_from)
            print(f"weights from {path}" + "; the last layer begins anew" * fresh)
        surgery.freeze(net, frozen)
    except ValueError as error:
        raise Mistake(error) from None
    return net


def batches(dataset, augment, recipe, args, mode, device, ranks=parallel.SOLO):
    size = max(1, recipe.batch_size // (10 if mode == "ten" else 1))
    workers = 2 if args.workers is None else args.workers
    return Loader(dataset, size, augment, shuffle=False, workers=workers, mode=mode,
                  rank=ranks.rank, ranks=ranks.size, device=device).batches(0)


if __name__ == "__main__":
    sys.exit(parallel.run(main, PROGRAM))
