"""Initial weights: functions ``(shape, rng) -> float32 array``."""
import math

import numpy as np


def normal(std):
    """Return an initializer N(0, std); the paper uses 0.01 in all layers (section 5).

    >>> import numpy as np
    >>> normal(0.01)((2, 3), np.random.default_rng(0)).shape
    (2, 3)
    """
    def draw(shape, rng):
        return rng.standard_normal(shape, np.float32) * np.float32(std)
    return draw


def he(shape, rng):
    """Draw N(0, sqrt(2 / fan-in)), which keeps the variance through ReLU layers.

    >>> import numpy as np
    >>> he((4, 3, 5, 5), np.random.default_rng(0)).shape
    (4, 3, 5, 5)
    """
    return normal(math.sqrt(2 / math.prod(shape[1:])))(shape, rng)
