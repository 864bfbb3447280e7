"""Recipe: how a net is fed and trained. It travels with the net and its checkpoints."""
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Recipe:
    """Settings under which a net is known to train.

    Attributes
    ----------
    name, variant : str
        The model's name and, of AlexNet, the variant.
    image_size : int
        Side of the square that the net looks at.
    resize : int or None
        The shorter side of a picture is first made so long.
    input_scale : float
        Pixels minus the mean (0..255) are divided by it.
    batch_size, epochs : int
    lr, momentum, weight_decay : float
    bias_lr : float or None
        Learning rate of the biases where it differs.
    milestones : tuple of float
        Shares of the run after which the rate falls to a tenth; empty where `plateau` rules.
    plateau : int or None
        Epochs without improvement of the validation error after which the rate falls to a tenth.
    lr_epochs : tuple of float or None
        Epochs after which the rate falls to a tenth, instead of both; () for never.
    dropout : float
    init : {"variant", "he"}
        How weights and biases start: see models.alexnet.
    augment : bool
        Whether training crops at random and mirrors; else it sees centers.
    color_noise : float
        Strength of the color noise along the principal components, 0 for none.
    color_reading : {"paper", "source"}
        Eigenvalue or its square root: see data.Augment.
    central_mean : bool
        Subtract the mean's center whatever the crop's position, as the 2012 source.
    """

    name: str
    variant: str = "paper"
    image_size: int = 224
    resize: int | None = None
    input_scale: float = 1.0
    batch_size: int = 128
    epochs: int = 90
    lr: float = 0.01
    bias_lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    milestones: tuple = ()
    plateau: int | None = None
    lr_epochs: tuple | None = None
    dropout: float = 0.5
    init: str = "variant"
    augment: bool = True
    color_noise: float = 0.0
    color_reading: str = "paper"
    central_mean: bool = False

    def to_dict(self):
        """Return the settings as plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings):
        """Return the recipe that :meth:`to_dict` wrote; entries it does not know are refused.

        >>> Recipe.from_dict(Recipe("alexnet").to_dict()) == Recipe("alexnet")
        True
        """
        unknown = set(settings) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"recipe: unknown settings {sorted(unknown)}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value
                      for name, value in settings.items()})
