#!/usr/bin/env python
"""One side of a pair: a whole net that trains and infers on command, in a process of its own.

    python benchmarks/worker.py export   paper --batch 128 --data FILE
    python benchmarks/worker.py tinyalex paper --data FILE
    python benchmarks/worker.py torch    paper --data FILE --variant channels_last

`export` writes what both sides load: weights, pictures, labels and recipe. Then each side answers

    check      loss and the norm of each gradient, dropout off: both sides must agree
    train K    K steps of training; seconds of one
    infer K    K times forward without gradients; seconds of one
    memory     the most bytes held so far
"""
import argparse
import json
import math
import time
from dataclasses import replace

import numpy as np
from serving import peak_memory, serve

SLOWER = 100          # by so much: a hundred steps on one batch leave the net nearly as it was
NETS = ("paper", "paper-nolrn", "mini64", "mini32", "80sec", "18pct")


def export(args):
    """Write the net, its recipe and a batch of pictures; return what is known of them."""
    import tinyalex as ta
    from tinyalex import models
    from tinyalex.data import Augment, Shapes

    ta.manual_seed(0)
    net, recipe, classes = build(args.net)
    recipe = replace(recipe, lr=recipe.lr / SLOWER,
                     bias_lr=recipe.bias_lr and recipe.bias_lr / SLOWER)
    batch = args.batch or recipe.batch_size
    shapes = Shapes("train", count=batch)
    mean = shapes.pictures.mean((0, 1, 2), keepdims=True)[0]             # (1, 1, 3)
    augment = Augment(recipe.image_size, mean, recipe.input_scale, resize=recipe.image_size)
    images = augment.center(shapes.pictures)                             # (N, 3, S, S)
    named = dict(net.named_parameters())
    rates = {name: rate(p, recipe) for name, p in named.items()}
    table = models.summary(net, recipe.image_size)
    first = next(row["macs"] for row in table.rows if row["macs"])
    towers = 2 if "towers.0.conv1" in {row["layer"] for row in table.rows} else 1
    forward = 2 * batch * table.total["macs"]
    facts = {"net": args.net, "batch": batch, "classes": classes, "dropout": recipe.dropout,
             "momentum": recipe.momentum, "lr": recipe.lr, "bias_lr": recipe.bias_lr,
             "weight_decay": recipe.weight_decay, "image_size": recipe.image_size,
             # backward is twice forward, but nothing asks for the gradient of the picture
             "flop_infer": forward, "flop_train": 3 * forward - 2 * batch * first * towers}
    np.savez(args.data, meta=json.dumps({**facts, "rates": rates}),
             images=images.transpose(0, 2, 3, 1), labels=shapes.labels % classes,    # (N, S, S, 3)
             **{f"weight {name}": p.data for name, p in named.items()})
    serve({}, facts)


def build(name):
    """Return tinyalex's net called `name`, its recipe, and its number of classes."""
    from tinyalex import models, nn

    class Nothing(nn.Module):
        def forward(self, x):
            return x

    if name in ("80sec", "18pct"):
        return *models.build(name, 10), 10
    if name.startswith("mini"):
        return *models.build("mini", 16, image_size=int(name[4:])), 16
    net, recipe = models.build("alexnet", 1000, image_size=227)    # no border on either side
    if name == "paper-nolrn":
        for tower in net.towers:
            tower.norm1, tower.norm2 = Nothing(), Nothing()
    return net, recipe, 1000


def own_name(name):
    """Return PyTorch's name for a parameter of tinyalex: both towers' parts are one there.

    >>> own_name("towers.1.conv2.weight"), own_name("fc8.bias")
    ('conv2.weight', 'fc8.bias')
    """
    return name.split(".", 2)[2] if name.startswith("towers.") else name


def rate(parameter, recipe):
    """Return learning rate and weight decay of one parameter, as tinyalex's SGD finds them."""
    if parameter.is_bias:
        return recipe.lr if recipe.bias_lr is None else recipe.bias_lr, 0.0
    own = getattr(parameter, "weight_decay", None)
    return recipe.lr, recipe.weight_decay if own is None else own


# ---------------------------------------------------------------------------- the two sides

class TinyAlex:
    """tinyalex's side."""

    def __init__(self, file, meta, args):
        import tinyalex as ta
        from tinyalex import functional as F
        from tinyalex import optim

        if args.threads:
            ta.set_num_threads(args.threads)
        ta.manual_seed(0)
        self.ta, self.F = ta, F
        self.net, _, _ = build(meta["net"])
        self.net.load_state_dict({name[7:]: file[name] for name in file.files
                                  if name.startswith("weight ")})
        self.x, self.y = file["images"].transpose(0, 3, 1, 2), file["labels"]  # (N, 3, S, S)
        self.optimizer = optim.SGD(self.net.parameters(), meta["lr"], meta["momentum"],
                                   meta["weight_decay"], meta["bias_lr"])
        self.facts = {"threads": ta.get_num_threads()}

    def gradients(self):
        """Return the loss and each gradient's sum of squares, dropout off."""
        from tinyalex import nn

        drops = [m for m in self.net.modules() if isinstance(m, nn.Dropout)]
        before = [m.p for m in drops]
        for m in drops:
            m.p = 0.0
        loss = self.backward()
        for m, p in zip(drops, before, strict=True):
            m.p = p
        squares = {}
        for name, p in self.net.named_parameters():
            name = own_name(name)
            squares[name] = squares.get(name, 0.0) + sum_of_squares(p.grad)
        return loss, squares

    def backward(self):
        """Run forward and backward."""
        self.optimizer.zero_grad()
        loss = self.F.cross_entropy(self.net(self.x), self.y)
        loss.backward()
        return loss.item()

    def infer(self):
        """Run forward alone."""
        with self.ta.no_grad():
            return self.net(self.x)


class Torch:
    """PyTorch's side."""

    def __init__(self, file, meta, args):
        import torch
        import torch_nets

        if args.threads:
            torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        self.torch = torch
        self.net = torch_nets.build(meta["net"], args.variant, meta["classes"], meta["dropout"])
        parts = {}
        for name in meta["rates"]:
            parts.setdefault(own_name(name), []).append(name)
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                p.copy_(torch.from_numpy(np.concatenate([file[f"weight {n}"]
                                                         for n in parts.pop(name)])))
        if parts:
            raise ValueError(f"PyTorch's net has no place for {', '.join(parts)}")
        self.x = torch_nets.pictures(file["images"], meta["net"], args.variant)
        self.y = torch.from_numpy(file["labels"])
        rates = {own_name(name): rate for name, rate in meta["rates"].items()}
        self.optimizer = torch.optim.SGD(torch_nets.groups(self.net, rates),
                                         momentum=meta["momentum"])
        self.facts = {"threads": torch.get_num_threads()}

    def gradients(self):
        """Return the loss and each gradient's sum of squares, dropout off."""
        drops = [m for m in self.net.modules() if isinstance(m, self.torch.nn.Dropout)]
        for m in drops:
            m.eval()
        loss = self.backward()
        for m in drops:
            m.train()
        return loss, {name: sum_of_squares(p.grad.numpy())
                      for name, p in self.net.named_parameters()}

    def backward(self):
        """Run forward and backward."""
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.cross_entropy(self.net(self.x), self.y)
        loss.backward()
        return loss.item()

    def infer(self):
        """Run forward alone."""
        with self.torch.inference_mode():
            return self.net(self.x)


def sum_of_squares(a):
    """Return the sum in float64, piece by piece: no large array is made."""
    flat = a.ravel(order="K")
    return sum(float(np.square(flat[i:i + 2**20], dtype=float).sum())
               for i in range(0, flat.size, 2**20))


# ---------------------------------------------------------------------------- commands

def answer(side):
    """Return the commands of one side, as :func:`pairs.serve` takes them."""
    def check():
        loss, squares = side.gradients()
        side.optimizer.zero_grad()
        return {"loss": loss, "norms": {name: math.sqrt(s) for name, s in squares.items()}}

    def train(count="1"):
        side.net.train()
        start = time.perf_counter()
        for _ in range(int(count)):
            loss = side.backward()
            side.optimizer.step()
        seconds = time.perf_counter() - start
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss}: such a step is not worth timing")
        return {"seconds": seconds / int(count), "loss": loss}

    def infer(count="1"):
        side.net.eval()
        start = time.perf_counter()
        for _ in range(int(count)):
            side.infer()
        return {"seconds": (time.perf_counter() - start) / int(count)}

    return {"check": check, "train": train, "infer": infer,
            "memory": lambda: {"bytes": peak_memory()}}


def main():
    """Be what the arguments say."""
    parser = argparse.ArgumentParser(description="One side of a pair; nets.py starts it.")
    parser.add_argument("side", choices=("export", "tinyalex", "torch"))
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--data", metavar="FILE", required=True, help="what export writes")
    parser.add_argument("--batch", type=int, help="for export; the recipe's where not given")
    parser.add_argument("--threads", type=int, help="as each library chooses where not given")
    parser.add_argument("--variant", choices=("default", "channels_last", "handwritten"),
                        default="default", help="of PyTorch's net")
    args = parser.parse_args()
    if args.side == "export":
        export(args)
        return
    with np.load(args.data) as file:
        meta = json.loads(str(file["meta"]))
        side = {"tinyalex": TinyAlex, "torch": Torch}[args.side](file, meta, args)
    serve(answer(side), side.facts)


if __name__ == "__main__":
    main()
