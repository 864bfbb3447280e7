"""From a run to a checkpoint's arrays, and from a checkpoint back to a net that can be used.

Arrays are named ``model/<parameter>``, ``momentum/<number of the parameter>`` and
``statistics/<part>``; everything else is the checkpoint's JSON.
"""
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import models, random
from ..data import Augment, Statistics
from .checkpoint import CheckpointError, load, load_newest
from .evaluate import Score, Tally

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Saved:
    """A net out of a checkpoint, with all it takes to show it pictures.

    Attributes
    ----------
    path : pathlib.Path
    net : Module
    recipe : Recipe
    classes : tuple of str
    augment : Augment
        Prepares a stranger's uint8 pictures, of any size: ``augment.center(pictures)``.
    plain : Augment
        Prepares those of a Dataset, which has brought them to their size itself.
    meta : dict
        All else that the checkpoint says.
    """

    path: Path
    net: object
    recipe: models.Recipe
    classes: tuple
    augment: Augment
    plain: Augment
    meta: dict


def read(path):
    """Read a checkpoint from its file, from the folder it lies in or from its run's folder.

    Parameters
    ----------
    path : path

    Returns
    -------
    path : pathlib.Path
        The file that was read.
    arrays : dict of str to numpy.ndarray
    meta : dict

    Raises
    ------
    CheckpointError
        As `checkpoint.load` and `checkpoint.load_newest` do; where a single file is damaged, the
        message offers a good one that lies beside it.
    """
    path = Path(path)
    if path.is_dir():
        inner = path / "checkpoints"
        path, arrays, meta = load_newest(inner if inner.is_dir() else path)
    else:
        try:
            arrays, meta = load(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}{_offer(path)}") from None
    if meta.get("format", FORMAT + 1) > FORMAT:
        raise CheckpointError(f"{path}: written by a newer tinyalex (format {meta.get('format')}, "
                              f"this one reads {FORMAT})")
    return path, arrays, meta


def open_net(path, devices=("cpu:0",)):
    """Build the net of a checkpoint and load its weights.

    Parameters
    ----------
    path : path
        As :func:`read` takes it.
    devices : tuple of Device or str

    Returns
    -------
    Saved

    Raises
    ------
    CheckpointError
        It cannot be read, or its parts do not fit together.
    """
    path, arrays, meta = read(path)
    try:
        recipe = recipe_of(path, meta)
        classes = tuple(meta["classes"])
        net, _ = models.build(recipe.name, len(classes), recipe.variant, devices,
                              recipe.image_size, recipe.dropout, recipe.init)
        net.load_state_dict(part(arrays, "model"))
        found = statistics(arrays)
        return Saved(path, net, recipe, classes,
                     augment(recipe, found, _size(meta["resize"], found, recipe)),
                     augment(recipe, found), meta)
    except (KeyError, TypeError, ValueError) as error:
        fault = f"lacks {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{path}: {fault}") from error


def recipe_of(path, meta):
    """Return the Recipe of a checkpoint; a CheckpointError where it has none that is understood."""
    try:
        return models.Recipe.from_dict(meta["recipe"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its recipe is not understood ({error})") from None


def state_of(trainer):
    """Return all that a Trainer needs to go on to the same bits: (arrays, meta).

    Neither a time nor a path is in it: runs that were the same so far give the same file.
    """
    optimizer = trainer.optimizer.state_dict()
    arrays = {**named(trainer.net.state_dict(), "model"),
              **named(optimizer.pop("momentum"), "momentum"),
              **named(trainer.statistics.to_dict(), "statistics")}
    meta = {"format": FORMAT, "step": trainer.step, "validated": trainer.validated,
            "best": trainer.best, "score": trainer.score and asdict(trainer.score),
            "tally": trainer.tally.sums, "random": random.get_state(), "optimizer": optimizer,
            "schedule": trainer.schedule.state_dict(), "recipe": trainer.recipe.to_dict(),
            "classes": list(trainer.train.classes), "resize": trainer.train.resize,
            "pictures": len(trainer.train), "options": trainer.options}
    return arrays, meta


def go_on(trainer, arrays, meta):
    """Put a Trainer where :func:`state_of` found another, and its log with it.

    Raises
    ------
    CheckpointError
        The checkpoint is from other classes, pictures or batches, or of another net.
    """
    for what, theirs, ours in (
            ("classes", len(meta["classes"]), len(trainer.train.classes)),
            ("class names", meta["classes"], list(trainer.train.classes)),
            ("pictures to train on", meta["pictures"], len(trainer.train)),
            ("pictures in a batch", meta["recipe"]["batch_size"], trainer.recipe.batch_size)):
        if theirs != ours:
            numbers = f": {theirs:,} there, {ours:,} here" if isinstance(ours, int) else ""
            raise CheckpointError(f"the checkpoint's run had other {what}{numbers}")
    try:
        trainer.net.load_state_dict(part(arrays, "model"))
        trainer.optimizer.load_state_dict(
            {**meta["optimizer"], "momentum": part(arrays, "momentum")})
    except ValueError as error:
        raise CheckpointError(f"the checkpoint is of another net: {error}") from None
    trainer.schedule.load_state_dict(meta["schedule"])
    random.set_state(**meta["random"])
    trainer.step, trainer.validated, trainer.best = meta["step"], meta["validated"], meta["best"]
    trainer.score = meta["score"] and Score(**meta["score"])
    trainer.tally = Tally(meta["tally"] if trainer.ranks.leads else None)
    trainer.run.go_back(trainer.step, trainer.validated)


def statistics(arrays):
    """Return the Statistics among a checkpoint's arrays."""
    return Statistics.from_dict(part(arrays, "statistics"))


def part(arrays, prefix):
    """Return the arrays under one prefix, by the rest of their names.

    Examples
    --------
    >>> part({"model/w": 1, "momentum/0": 2}, "model")
    {'w': 1}
    """
    return {name[len(prefix) + 1:]: array for name, array in arrays.items()
            if name.startswith(prefix + "/")}


def named(arrays, prefix):
    """Return arrays under a prefix: what :func:`part` takes apart.

    Examples
    --------
    >>> named({"w": 1}, "model")
    {'model/w': 1}
    """
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def augment(recipe, found, resize=None):
    """Return the preparation of pictures that a recipe asks for, with a training set's Statistics.

    Examples
    --------
    >>> from tinyalex.data import Shapes, statistics
    >>> found = statistics(Shapes("train", count=64))
    >>> augment(models.Recipe("mini", image_size=67), found).image_size
    67
    """
    noise = recipe.color_noise if recipe.augment else 0.0
    return Augment(recipe.image_size, found.mean, recipe.input_scale, found.eigenvalues,
                   found.eigenvectors, noise, recipe.color_reading,
                   crop=recipe.augment, flip=recipe.augment, central_mean=recipe.central_mean,
                   resize=resize)


def _size(resize, found, recipe):
    """The size that a stranger's picture is brought to: that of the pictures trained on."""
    height, width = found.mean.shape[:2]
    if resize or height == width == 1:               # of many sizes: the paper's proportion
        return resize or round(recipe.image_size * 8 / 7)
    return min(height, width)


def _offer(path):
    """Say which good checkpoint lies beside a damaged one."""
    if not path.parent.is_dir():
        return ""
    for other in sorted(path.parent.glob("step-*.safetensors"), reverse=True):
        try:
            load(other)
            return f"; a good one beside it is {other}"
        except CheckpointError:
            continue
    return ""
