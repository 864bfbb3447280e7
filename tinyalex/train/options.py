"""What the flags, a model's recipe and a checkpoint settle together before a run begins.

A flag that was not given is None. A new run takes its place from the recipe or from DEFAULTS; a
resumed run from the checkpoint, so that ``--resume PATH`` alone goes on with the same run.
"""
import dataclasses
import os

from .. import models
from ..models.build import RECIPES
from . import restore
from .console import Mistake
from .rundir import RunFolder, has_checkpoints, newest_run

RUNS = "runs"
DEFAULTS = {"data": "shapes", "model": "mini", "variant": "paper", "seed": 0, "workers": 2,
            "print_freq": 50, "save_freq": 0}
RECIPE = ("image_size", "batch_size", "lr", "bias_lr", "momentum", "weight_decay", "dropout",
          "epochs", "init", "input_scale", "augment", "lr_epochs")
# what cannot change as long as a run goes on
FIXED = ("model", "variant", "image_size", "batch_size", "seed", "init", "input_scale")
ONCE = ("resume", "output_dir", "dry_run", "test_only", "ten_crop", "average", "init_from",
        "distributed", "watchdog", "check_freq", "scale_lr")


def new_recipe(args):
    """Return the model's recipe with the flags' changes, and fill in `args`.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    Recipe

    Raises
    ------
    Mistake
        There is no such variant of the model.
    """
    _fill(args, DEFAULTS)
    try:
        models.variants.find(args.variant)
        recipe = RECIPES[args.model, args.variant]
    except ValueError as error:
        raise Mistake(f"--{error}") from None
    except KeyError:
        raise Mistake(f"--variant {args.variant}: --model {args.model} has no variants") from None
    own, recipe = recipe.batch_size, _changed(recipe, args, RECIPE)
    if args.scale_lr:                    # the linear rule of Goyal and others 2017
        times = recipe.batch_size / own
        recipe = dataclasses.replace(recipe, lr=recipe.lr * times,
                                     bias_lr=recipe.bias_lr and recipe.bias_lr * times)
    return recipe


def resumed_recipe(args, path, meta):
    """Return a checkpoint's recipe with the flags' changes, and fill in `args` from it.

    Raises
    ------
    Mistake
        A flag contradicts what cannot change while a run goes on.
    """
    given = {name for name, value in vars(args).items() if value is not None}
    recipe = restore.recipe_of(path, meta)
    theirs = {**dataclasses.asdict(recipe), "model": recipe.name, "seed": meta["random"]["seed"]}
    for name in FIXED:
        if name in given and getattr(args, name) != theirs[name]:
            flag = "--" + name.replace("_", "-")
            raise Mistake(f"{flag} {getattr(args, name)}: {path} is from a run with {flag} "
                          f"{theirs[name]}, which cannot change; leave the flag out or begin anew")
    if args.scale_lr:
        raise Mistake("--scale-lr: the rate was settled when the run began; --lr sets another")
    kept = dict(meta["options"])
    if "epochs" in given:
        kept.pop("max_steps", None)      # a new length takes the place of the old
    _fill(args, kept)
    _fill(args, DEFAULTS)
    return _changed(recipe, args, given.intersection(RECIPE))


def to_keep(args):
    """Return the flags that a checkpoint shall remember."""
    return {name: value for name, value in vars(args).items()
            if value is not None and name not in ONCE}


def find_resumed(args):
    """Return (path, arrays, meta) of the checkpoint that --resume names, or three times None.

    Raises
    ------
    CheckpointError
        It cannot be read. With ``auto`` it is no error that there is none.
    """
    where = args.resume
    if where == "auto":
        where = args.output_dir or newest_run(RUNS, _run_name(args))
        if where is None or not has_checkpoints(where):
            return None, None, None
    return restore.read(where) if where else (None, None, None)


def run_folder(args, path):
    """Return the RunFolder to write to: --output-dir, that of the checkpoint, or a new one."""
    if args.output_dir:
        run = RunFolder(args.output_dir, resume=path is not None or args.resume == "auto")
        if path is None:
            run.go_back(0, 0)            # what a run wrote that did not reach its first checkpoint
        return run
    if path is not None and path.parent.name == "checkpoints":
        return RunFolder(path.parent.parent, resume=True)
    return RunFolder.fresh(RUNS, _run_name(args))


def build(recipe, classes, devices):
    """Build the net of a recipe; what does not go together is a Mistake."""
    try:
        return models.build(recipe.name, classes, recipe.variant, devices, recipe.image_size,
                            recipe.dropout, recipe.init)[0]
    except ValueError as error:
        raise Mistake(error) from None


def too_large(error, table, asked):
    """Say in one line that a batch does not fit a GPU, and which does.

    Parameters
    ----------
    error : OutOfMemory
    table : Summary
        Of the net that was being trained.
    asked : int
        The batch size.

    Returns
    -------
    str
    """
    device, memory = error.device, error.device.memory()
    total, limit = memory["total_bytes"], memory["limit_bytes"]
    card = device.name.split("#")[0]                       # two towers may share it
    on_card = [row["device"] for row in table.rows if row["device"].split("#")[0] == card]
    fits = table.fits(min(total, limit or total), on_card)
    if fits >= asked:                                      # the table knows of no working memory
        fits = asked // 2
    return (f"--batch-size {asked}: does not fit {device.name}, which has {total / 2**30:.2f} GiB"
            + (f", of which {limit / 2**30:.2f} may be used" if limit else "") + "; "
            + (f"the largest that would is about {fits}" if fits
               else "not even one picture would: a smaller --model, or --gpus 0,1, needs less"))


def _fill(args, values):
    for name, value in values.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if args.data and args.data not in ("shapes", "cifar10", "tinyimagenet"):
        args.data = os.path.abspath(args.data)        # so that a run is resumed from anywhere


def _changed(recipe, args, names):
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "lr_epochs" in changes:
        changes["plateau"] = None            # a list of epochs takes the place of watching
    return dataclasses.replace(recipe, **changes)


def _run_name(args):
    data = os.path.basename(args.data or DEFAULTS["data"]) or "data"
    return f"{data}-{args.model or DEFAULTS['model']}"
