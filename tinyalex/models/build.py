"""A net and its recipe by name, as the command line gives them."""
from dataclasses import replace

from ..device import Device
from . import cifar
from .alexnet import alexnet, mini
from .recipe import Recipe
from .variants import find

RECIPES = {
    # section 5: batches of 128, rate 0.01, divided by ten when the validation error stops falling
    ("alexnet", "paper"): Recipe("alexnet", resize=256, plateau=5, color_noise=0.1),
    # configuration 145: a rate of their own for biases, noise by the square root, the mean's center
    ("alexnet", "source2012"): Recipe(
        "alexnet", "source2012", resize=256, plateau=5, bias_lr=0.02, color_noise=0.1,
        color_reading="source", central_mean=True),
    # found by experiment: enough for shapes in a thousand steps; models.mini tells of the start
    ("mini", "paper"): Recipe("mini", image_size=67, input_scale=64.0, batch_size=64, epochs=8,
                              lr=0.02, milestones=(0.7, 0.9), dropout=0.2),
    ("mini", "source2012"): Recipe("mini", "source2012", image_size=67, input_scale=64.0,
                                   batch_size=64, epochs=8, lr=0.02, milestones=(0.7, 0.9),
                                   dropout=0.2),
    ("80sec", "paper"): Recipe("80sec", image_size=32, epochs=10, lr=0.001, bias_lr=0.002,
                               weight_decay=0.004, milestones=(0.8,), dropout=0.0, augment=False),
    ("18pct", "paper"): Recipe("18pct", image_size=32, epochs=140, lr=0.001, bias_lr=0.002,
                               weight_decay=0.004, milestones=(120 / 140, 130 / 140), dropout=0.0,
                               augment=False),
}
NAMES = ("alexnet", "mini", "80sec", "18pct")


def build(name, num_classes, variant="paper", devices=("cpu:0",), image_size=None, dropout=None,
          init="variant"):
    """Build a net and return it with its recipe.

    Parameters
    ----------
    name : {"alexnet", "mini", "80sec", "18pct"}
    num_classes : int
    variant : str
        Of alexnet and mini.
    devices : one or two of Device or str
    image_size : int, optional
        The recipe's where None.
    dropout : float, optional
        The recipe's where None.
    init : {"variant", "he"}
        Of alexnet: how its weights start.

    Returns
    -------
    net : Module
    recipe : Recipe

    Raises
    ------
    ValueError
        If name, variant, size and devices do not go together.

    Examples
    --------
    >>> from tinyalex import models
    >>> net, recipe = models.build("mini", 16)
    >>> recipe.batch_size
    64
    """
    if name not in NAMES:
        raise ValueError(f"model: got {name!r}; choose one of {', '.join(NAMES)}")
    devices = (devices,) if isinstance(devices, (str, Device)) else tuple(devices)
    if name in ("80sec", "18pct"):
        if variant != "paper" or len(devices) != 1 or image_size not in (None, 32) or dropout \
                or init != "variant":
            raise ValueError(f"model {name}: it has one tower, one start, no variants, no dropout "
                             f"and pictures of 32; got {len(devices)} device(s), variant "
                             f"{variant!r}, dropout {dropout}, image_size {image_size}, "
                             f"init {init!r}")
        make = {"80sec": cifar.quick_80sec, "18pct": cifar.rnorm_18pct}[name]
        return make(num_classes, devices[0]), RECIPES[name, "paper"]
    if name == "mini" and init != "variant":
        raise ValueError(f"init: got {init!r}; mini has one start, 'variant'")
    start = {"init": init} if name == "alexnet" else {}
    recipe = RECIPES[name, find(variant).name]
    recipe = replace(recipe, image_size=recipe.image_size if image_size is None else image_size,
                     dropout=recipe.dropout if dropout is None else dropout, init=init)
    net = {"alexnet": alexnet, "mini": mini}[name](
        variant=variant, num_classes=num_classes, devices=devices,
        image_size=recipe.image_size, dropout=recipe.dropout, **start)
    return net, recipe
