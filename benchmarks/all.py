#!/usr/bin/env python
"""Run every benchmark, one after the other, and write the tables into benchmarks/README.md.

    python benchmarks/all.py                      about 35 minutes; leave the machine alone
    python benchmarks/all.py --only nets,imports
    python benchmarks/all.py --quick              a look: README and results stay as they are
    python benchmarks/all.py --tables             measure nothing, write the tables anew
"""
import json
import pathlib
import signal
import subprocess
import sys
import tempfile

from pairs import need, note, run, table
from report import RESULTS
from tinyalex.train import console

PROGRAM = "all.py"
HERE = pathlib.Path(__file__).resolve().parent
README = HERE / "README.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
SCRIPTS = ("nets", "layers", "growth", "engine", "imports")
ALONE = ("loader", "scaling")          # need pictures, or MPI: run by hand, and shown here


def start(name, flags):
    """Run one script to its end and return its exit code; Ctrl-C ends it before us."""
    child = subprocess.Popen([sys.executable, HERE / f"{name}.py", *flags])
    try:
        return child.wait()
    except KeyboardInterrupt:
        try:
            child.wait(2)                            # a terminal sends Ctrl-C to both of us
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            child.wait()
        raise


def tables(results):
    """Return the Markdown of all results: the machine once, then each script's tables.

    Parameters
    ----------
    results : list of dict
        As :func:`pairs.save` writes them. One that was measured on another machine says so.
    """
    first = _described(results[0])
    parts = [table("The machine", ["what", "is"], [[k, str(v)] for k, v in first.items()])]
    for result in results:
        rounds = f", {result['rounds']} rounds" if "rounds" in result else ""
        parts.append(f"### {result['name']}.py\n\nMeasured on {result['date']}{rounds}.")
        own = _described(result)
        if own != first:
            other = (f"{k}: {own.get(k, 'none')}" for k in {**first, **own}
                     if own.get(k) != first.get(k))
            parts.append("On another machine than above: " + "; ".join(other) + ".")
        parts += [table(one["title"], one["columns"], one["rows"]) for one in result["tables"]]
    return "\n\n".join(parts)


def _described(result):
    """The machine without what changes from minute to minute."""
    return {key: value for key, value in result["machine"].items() if key != "load"}


def between_markers(text, new):
    """Return `text` with `new` between its two markers.

    Raises
    ------
    Mistake
        If it has no such place.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise console.Mistake(f"README.md has no place for the tables: {BEGIN} ... {END}")
    return f"{before}{begin}\n\n{new}\n\n{end}{after}"


def write_tables():
    """Put the newest results of all scripts into README.md."""
    files = [RESULTS / f"{name}.json" for name in SCRIPTS + ALONE]
    found = [json.loads(file.read_text()) for file in files if file.exists()]
    if not found:
        raise console.Mistake(f"there is no result in {RESULTS} yet")
    README.write_text(between_markers(README.read_text(), tables(found)))
    note(f"written into {README}")


def main(argv=None):
    """Run the scripts and write the tables."""
    parser = console.Parser(prog=PROGRAM, description="Run every benchmark and write the tables.")
    parser.add_argument("--rounds", type=console.number(int, least=1), metavar="N",
                        help="for all of them; default: each script's own")
    parser.add_argument("--only", metavar="NAME,NAME", help=f"some of {','.join(SCRIPTS)}")
    parser.add_argument("--quick", action="store_true", help="a look; nothing is kept")
    parser.add_argument("--tables", action="store_true", help="measure nothing, write the tables")
    args = parser.parse_args(argv)
    names = args.only.split(",") if args.only else SCRIPTS
    unknown = [name for name in names if name not in SCRIPTS]
    if unknown:
        raise console.Mistake(f"--only {args.only}: there is no {unknown[0]}; "
                              f"choose from {', '.join(SCRIPTS)}")
    if args.tables:
        write_tables()
        return 0
    need("torch")
    flags = ["--rounds", str(args.rounds)] if args.rounds else []
    failed = []
    with tempfile.TemporaryDirectory(prefix="tinyalex-") as folder:
        for name in names:
            note(f"--- {name}.py")
            aside = ["--quick", "--output", f"{folder}/{name}.json"] if args.quick else []
            if start(name, flags + aside):
                failed.append(name)                  # it has said why; the others still count
    if not args.quick and len(failed) < len(names):
        write_tables()
    if failed:
        note(f"{PROGRAM}: failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run(main, PROGRAM))
