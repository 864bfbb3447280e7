"""What every benchmark shows and writes, and the flags and messages that all of them share."""
import datetime
import importlib.util
import json
import pathlib
import sys

from host import machine
from tinyalex.train import console

RESULTS = pathlib.Path(__file__).resolve().parent / "results"


class WorkerFailed(RuntimeError):
    """A worker ended where it should have answered; the message ends with what it said last."""


# ---------------------------------------------------------------------------- what is shown

def cell(value):
    """Return a table's text for a value: three digits of a float, thousands apart, "" for None.

    >>> [cell(v) for v in ("default", None, 1234, 1234.5, 0.98765)]
    ['default', '', '1,234', '1,234', '0.988']
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(title, columns, rows):
    """Return a table: Markdown that reads well as plain text.

    Parameters
    ----------
    title : str
    columns : list of str
    rows : list of list
        Cells as :func:`cell` takes them; numbers stand to the right.
    """
    texts = [[cell(value) for value in row] for row in rows]
    right = [all(isinstance(row[i], (int, float, type(None))) for row in rows)
             for i in range(len(columns))]
    width = [max(3, *(len(line[i]) for line in [columns, *texts])) for i in range(len(columns))]
    lines = ["| " + " | ".join(f"{text:{'>' if r else '<'}{w}}" for text, r, w in
                               zip(line, right, width, strict=True)) + " |"
             for line in [columns, *texts]]
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-")
                          for w, r in zip(width, right, strict=True)) + "|"
    return "\n".join([f"**{title}**", "", lines[0], rule, *lines[1:]])


def show(title, columns, rows):
    """Print :func:`table` and return it."""
    text = table(title, columns, rows)
    print("\n" + text, flush=True)
    return text


def save(name, payload, output=None):
    """Write `payload` with machine and date to `output`, or to results/NAME.json; return the path.

    By convention `payload` holds {"tables": [{"title", "columns", "rows"}, ...]}, what was shown,
    and whatever else the figures were made of.
    """
    path = pathlib.Path(output) if output else RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"name": name, "date": datetime.date.today().isoformat(), "machine": machine(),
             **payload}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"\nwritten to {path}", flush=True)
    return path


# ---------------------------------------------------------------------------- command lines

def parser(program, description, rounds):
    """Return a parser with the flags that every benchmark has: --rounds, --output, --quick."""
    made = console.Parser(prog=program, description=description)
    made.add_argument("--rounds", type=console.number(int, least=1), default=rounds, metavar="N",
                      help=f"how many pairs each figure is the median of; default: {rounds}")
    made.add_argument("--output", metavar="FILE", help="default: benchmarks/results/NAME.json")
    made.add_argument("--quick", action="store_true", help="a look, not a measurement")
    return made


def need(*packages, extra="bench"):
    """Stop with one line that says what to install, where one of `packages` is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise console.Mistake(f"{', '.join(missing)} is not installed; this benchmark needs "
                              f"pip install -e '.[{extra}]'")


def note(text):
    """Say on stderr what is being done: tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def run(main, program, argv=None):
    """Run a benchmark and return its exit code: as console.run, and 1 where a worker failed."""
    def guarded(argv):
        try:
            return main(argv)
        except WorkerFailed as error:
            note(f"{program}: {error}")
            return 1

    return console.run(guarded, program, argv)
