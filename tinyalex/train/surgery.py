"""Putting a trained net to a new use: its weights taken over, layers frozen, a new last layer."""
from . import restore


def take_weights(net, path):
    """Take over a checkpoint's weights; the last layer may be another one and then begins anew.

    Parameters
    ----------
    net : Module
    path : path
        As `restore.read` takes it.

    Returns
    -------
    path : pathlib.Path
        The file that was read.
    fresh : bool
        Whether the last layer was left as it is in `net`.

    Raises
    ------
    CheckpointError
        It cannot be read.
    ValueError
        Any other layer does not fit; nothing is taken over then.
    """
    path, arrays, _ = restore.read(path)
    weights, last = restore.part(arrays, "model"), last_layer(net)
    fits = {name: name in weights and weights[name].shape == p.shape
            for name, p in net.named_parameters()}
    others = [name for name, fit in fits.items() if not fit and _layer(name) != last]
    if others:
        raise ValueError(f"{path}: {len(others)} of its arrays do not fit this net, {others[0]} "
                         f"for one; only the last layer, {last}, may differ")
    missing, _ = net.load_state_dict(weights, strict=False)
    return path, bool(missing)


def freeze(net, names):
    """Let layers keep their weights.

    Parameters
    ----------
    net : Module
    names : list of str
        Layers such as ``"conv1"`` (in every tower), ``"towers.0.conv1"``, or ``"but-last"``.

    Returns
    -------
    list of str
        The layers that are frozen, by their whole names.

    Raises
    ------
    ValueError
        There is no such layer, or none is left to learn.

    Examples
    --------
    >>> from tinyalex import models
    >>> freeze(models.mini(), ["conv1", "fc6"])
    ['towers.0.conv1', 'towers.1.conv1', 'towers.0.fc6', 'towers.1.fc6']
    """
    layers = list(dict.fromkeys(_layer(name) for name, _ in net.named_parameters()))
    frozen = []
    for name in names:
        found = [layer for layer in layers if layer == name or layer.endswith("." + name)
                 or name == "but-last" and layer != last_layer(net)]
        if not found:
            known = ", ".join(dict.fromkeys(layer.rpartition(".")[2] for layer in layers))
            raise ValueError(f"there is no layer {name!r}; choose of {known}, but-last")
        frozen += [layer for layer in found if layer not in frozen]
    if len(frozen) == len(layers):
        raise ValueError("no layer is left to learn")
    for name, module in net.named_modules():
        if name in frozen:
            module.requires_grad_(False)
    return frozen


def last_layer(net):
    """Return the name of the layer that gives the logits.

    Examples
    --------
    >>> from tinyalex import models
    >>> last_layer(models.mini())
    'fc8'
    """
    return _layer(list(net.named_parameters())[-1][0])


def _layer(parameter):
    return parameter.rpartition(".")[0]
