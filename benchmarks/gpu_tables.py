"""The arithmetic of gpu.py: what was measured on a card becomes tables."""
import statistics

import layers
import pairs
from gpu_cifar import GOAL, YEAR_2012

WHAT = ("train", "infer")
NEEDS_TORCH = ("PyTorch", "ratio", "quartiles")      # words of columns that are empty without it
SPEED = ["precision", "batch", "what", "tinyalex ms", "PyTorch ms", "tinyalex img/s",
         "PyTorch img/s", "ratio", "quartiles", "rounds", "tinyalex TFLOP/s", "of the ceiling",
         "PyTorch TFLOP/s", "PyTorch, of it"]
MEMORY = ["precision", "batch", "tinyalex in use MB", "held MB", "PyTorch in use MB",
          "PyTorch, held MB", "ratio in use", "ratio held"]
LAUNCH = ["precision", "batch", "tinyalex launches ms", "card is done ms", "of it",
          "PyTorch launches ms", "PyTorch, done ms", "PyTorch, of it"]
CEILINGS = ["precision", "matrix product TFLOP/s", "copy GB/s"]
COLUMNS = ["columns Mi", "MB", "ms a step", "spread", "held MB", "stands"]
RACE = ["epoch", "seconds of training", "waited for pictures", "validation", "top-1 error %"]
GOALS = "goals on an H200: ratio >= 1.0 in float32, >= 0.8 in tf32"
MEMORY_GOAL = "goal on an H200: ratio <= 1.0"


def tables(found):
    """Return (title, columns, rows) of everything that `found` holds so far.

    Parameters
    ----------
    found : dict
        As gpu.measure fills it.
    """
    without = found["without"]
    side = f"tinyalex alone: {without}" if without else "tinyalex beside PyTorch (cudnn.benchmark)"
    records, made = found["records"], []
    if found["ceilings"]:
        made.append(("What the card can do at most", CEILINGS, ceiling_rows(found["ceilings"])))
    if records:
        made += [
            (f"AlexNet, {side}; {GOALS}", SPEED, speed_rows(records, found["ceilings"])),
            (f"Peak memory of a training step; {MEMORY_GOAL}", MEMORY, memory_rows(records)),
            ("How long the host takes to launch a training step, and the card to do it", LAUNCH,
             launch_rows(records))]
    for precision, one in found["layers"].items():
        made += layer_tables(precision, one, found["ceilings"][precision])
    made = [(title, *without_torch(columns, rows)) if without else (title, columns, rows)
            for title, columns, rows in made]
    if found["columns"]:
        sweep = found["columns"]
        made.append((f"Columns of a convolution: float32, batch {sweep['batch']}", COLUMNS,
                     column_rows(sweep)))
    if found["race"]:
        made.append((race_title(found["race"]), RACE, race_rows(found["race"])))
    return made


def without_torch(columns, rows):
    """Return a table without the columns that need PyTorch.

    >>> without_torch(["batch", "PyTorch ms"], [[128, None]])
    (['batch'], [[128]])
    """
    keep = [i for i, name in enumerate(columns) if not any(word in name for word in NEEDS_TORCH)]
    return [columns[i] for i in keep], [[row[i] for i in keep] for row in rows]


# ---------------------------------------------------------------------------- the whole net

def timed(record):
    """Return the pairs of a figure; alone, tinyalex is its own pair, which no table shows."""
    return pairs.Pairs(record["a"], record.get("b", record["a"]))


def speed_rows(records, ceilings):
    """Return the rows of milliseconds, pictures and operations a second."""
    rows = []
    for r in records:
        peak = ceilings[r["precision"]]["sgemm_gflops"] / 1e3
        for what in WHAT:
            paired = timed(r[what])
            medians = paired.median_a, paired.median_b
            rates = [r["flop"][what] / seconds / 1e12 for seconds in medians]
            shares = [[rate, f"{100 * rate / peak:.0f} %"] for rate in rates]
            rows.append([r["precision"], r["batch"], what, *(1e3 * m for m in medians),
                         *(r["batch"] / m for m in medians), paired.ratio,
                         f"{paired.low:.2f} - {paired.high:.2f}", len(paired.a),
                         *shares[0], *shares[1]])
    return rows


def memory_rows(records):
    """Return the rows of what a step takes at most."""
    rows = []
    for r in records:
        ours, theirs = r["memory"][0], r["memory"][-1]
        rows.append([r["precision"], r["batch"],
                     *(side[key] / 1e6 for side in (ours, theirs) for key in ("used", "held")),
                     *(ours[key] / theirs[key] for key in ("used", "held"))])
    return rows


def launch_rows(records):
    """Return the rows of host time beside card time, each step begun with an idle card."""
    rows = []
    for r in records:
        cells = []
        for side in (r["enqueue"][0], r["enqueue"][-1]):
            host, done = (statistics.median(side[key]) for key in ("host", "done"))
            cells += [1e3 * host, 1e3 * done, f"{100 * host / done:.0f} %"]
        rows.append([r["precision"], r["batch"], *cells])
    return rows


def ceiling_rows(ceilings):
    """Return the rows of what was measured of the card itself."""
    return [[precision, one["sgemm_gflops"] / 1e3, one["copy_gbs"]]
            for precision, one in ceilings.items()]


# ---------------------------------------------------------------------------- its parts

def layer_tables(precision, one, ceilings):
    """Return layers.py's tables: forward, backward and the whole step."""
    ours, theirs = one["answers"][0], one["answers"][-1]      # alone: no table shows the second
    batch = ours[0]["pictures"]
    return [(f"{precision}, batch {batch}: {title}", *of_a_batch(columns, rows, batch))
            for title, columns, rows in layers.tables(ours, theirs, one["layers"],
                                                      one["parameters"], ceilings)]


def of_a_batch(columns, rows, batch):
    """Return a table of layers.py in milliseconds of the batch and TFLOP/s.

    >>> of_a_batch(["part", "tinyalex ms/image", "GFLOP/s"], [["step", 0.5, 2000.0]], 128)
    (['part', 'tinyalex ms', 'TFLOP/s'], [['step', 64.0, 2.0]])
    """
    factors = {" ms/image": (" ms", batch), "GFLOP/s": ("TFLOP/s", 1e-3)}
    names, scales = list(columns), [None] * len(columns)
    for i, name in enumerate(columns):
        for old, (new, factor) in factors.items():
            if old in name:
                names[i], scales[i] = name.replace(old, new), factor
    return names, [[value if scale is None or value is None else value * scale
                    for value, scale in zip(row, scales, strict=True)] for row in rows]


def column_rows(sweep):
    """Return the rows of the sweep over conv_cuda.COLUMNS; "stands" marks the value in force."""
    rows = []
    for mebi, one in sweep["sizes"].items():
        low, high = pairs.quartiles(one["seconds"])
        rows.append([int(mebi), (int(mebi) << 22) / 1e6, 1e3 * statistics.median(one["seconds"]),
                     f"{1e3 * low:.2f} - {1e3 * high:.2f}", one["held"] / 1e6,
                     "here" if int(mebi) == sweep["before"] else ""])
    return rows


def race_rows(race):
    """Return the rows of the epochs, seconds added up."""
    rows, total = [], [0.0, 0.0, 0.0]
    for one in race["epochs"]:
        total = [t + one[key] for t, key in
                 zip(total, ("seconds", "waited", "validation"), strict=True)]
        rows.append([one["epoch"], *total, one["error"]])
    return rows


def race_title(race):
    """Return in words how the race ended."""
    rows = race_rows(race)
    end = f"80sec on CIFAR-10, float32 ({YEAR_2012:.0f} s on a GTX 580 in 2012)"
    if rows and rows[-1][-1] <= GOAL:
        return f"{end}: {rows[-1][1]:.1f} s of training to {GOAL:.0f} % error"
    best = min((row[-1] for row in rows), default=100.0)
    return f"{end}: {GOAL:.0f} % not reached, {best:.1f} % at best"
