"""Floor 5: the nets, and the recipe that each was trained with."""
from .alexnet import AlexNet, alexnet, mini
from .build import NAMES, build
from .cifar import quick_80sec, rnorm_18pct
from .recipe import Recipe
from .summary import Summary, summary
from .variants import VARIANTS, Variant

__all__ = ["AlexNet", "NAMES", "Recipe", "Summary", "VARIANTS", "Variant", "alexnet", "build",
           "mini", "quick_80sec", "rnorm_18pct", "summary"]
