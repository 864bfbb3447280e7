"""What the paper says and what its source does: every difference is a field here."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One reading of AlexNet.

    Attributes
    ----------
    name : str
    lrn : dict
        Arguments of local_response_norm; each tower normalizes over its own maps only.
    norm1_before_relu : bool
        The source normalizes conv1's raw sums and applies ReLU after pooling.
    spatial_norm : dict or None
        Arguments of the within-map norm that the source has after conv2's LRN.
    ties : bool
        Whether every tie in a max-pool takes the whole gradient.
    weight_std : dict
        Standard deviation of the initial weights, by layer; "other" for those not named.
    """

    name: str
    lrn: dict
    norm1_before_relu: bool
    spatial_norm: dict | None
    ties: bool
    weight_std: dict


VARIANTS = {
    "paper": Variant(
        name="paper",
        lrn=dict(size=5, alpha=1e-4, beta=0.75, k=2.0, divide_alpha=False),   # section 3.3
        norm1_before_relu=False,
        spatial_norm=None,
        ties=False,
        weight_std={"other": 0.01}),                                          # section 5
    "source2012": Variant(
        name="source2012",
        lrn=dict(size=5, alpha=1e-4, beta=0.75, k=2.0, divide_alpha=True),
        norm1_before_relu=True,
        spatial_norm=dict(size=5, alpha=1e-3, beta=0.75, k=1.0),
        ties=True,
        weight_std={"conv3": 0.03, "conv4": 0.03, "conv5": 0.03, "other": 0.01}),
}

LATER = {
    "caffe": "the bvlc_alexnet layout comes with the import of its public weights",
    "owt": "the one-tower net of 2014 comes with the import of its public weights",
}


def find(name):
    """Return the variant called `name`.

    Raises
    ------
    ValueError
        If there is none, or not yet.

    Examples
    --------
    >>> find("paper").lrn["k"]
    2.0
    """
    if name in LATER:
        raise ValueError(f"variant {name!r}: {LATER[name]}, which is not here yet; "
                         f"choose one of {', '.join(VARIANTS)}")
    if name not in VARIANTS:
        raise ValueError(f"variant: got {name!r}; choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
