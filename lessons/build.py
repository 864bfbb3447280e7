"""Make the notebooks of the lessons: read a draft, run it, keep the outputs worth keeping.

    python lessons/build.py                  run all notebooks, and keep their outputs
    python lessons/build.py 04 07            run these
    python lessons/build.py draft/04_name.py make lessons/04_name.ipynb of a draft, and run it
    python lessons/build.py --html OUT 04    write a page to look at as well, for each

A draft is a text of cells, as editors know it: a line ``# %% [markdown]`` begins a cell of text
(each line after ``# ``), ``# %%`` a cell of code, and ``# %% keep`` a cell whose output goes into
the committed notebook. All other outputs are dropped, so that the file stays small; whoever runs it
sees them all. The notebook itself is the source; a draft is thrown away.
"""
import ast
import base64
import copy
import hashlib
import importlib.util
import inspect
import io
import os
import pathlib
import re
import sys
import time

import checks
import nbformat
from tinyalex.train import console
from tinyalex.train.console import Mistake

PROGRAM = "build.py"
LESSONS = pathlib.Path(__file__).resolve().parent
MOST_PICTURE, MOST_NOTEBOOK = 120_000, 300_000           # bytes
WIDEST = 960                                             # pixels of a kept picture
SECONDS = 120                                            # for one notebook
KEEP = "keep"


def main(argv=None):
    """Run the command line; return the exit code."""
    parser = console.Parser(prog=PROGRAM, description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", help="numbers, or a draft that ends in .py")
    parser.add_argument("--html", metavar="FOLDER", help="write pages with all outputs there")
    options = parser.parse_args(argv)
    drafts = [pathlib.Path(name) for name in options.what if name.endswith(".py")]
    numbers = [name for name in options.what if not name.endswith(".py")]
    work = [(LESSONS / f"{draft.stem}.ipynb", from_draft(draft.read_text())) for draft in drafts]
    if numbers or not drafts:
        work += [(path, nbformat.read(path, 4)) for path in notebooks(numbers)]
    for path, notebook in work:
        start = time.perf_counter()
        notebook = executed(notebook)            # a notebook that fails leaves the old one alone
        if options.html:
            to_html(notebook, pathlib.Path(options.html) / f"{path.stem}.html")
        size = write(cleaned(notebook, path), path)
        thumbnail(notebook, path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, {size:,} bytes")
    return 0


def notebooks(numbers=()):
    """Return the paths of the notebooks, of all or of those numbers (``"04"``)."""
    paths = [p for p in sorted(LESSONS.glob("[0-9][0-9]_*.ipynb"))
             if not numbers or p.name[:2] in numbers]
    lost = set(numbers) - {p.name[:2] for p in paths}
    if lost:
        raise Mistake(f"there is no notebook {', '.join(sorted(lost))}_*.ipynb in {LESSONS}")
    return paths


# ---------------------------------------------------------------------------- drafts

def from_draft(text):
    """Return the notebook that a draft describes; ids are made of what the cells say."""
    cells, seen = [], set()
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        source = body.strip("\n")
        if "[markdown]" in head:
            source = "\n".join(re.sub(r"^# ?", "", line) for line in source.split("\n"))
        name = _name(source, seen)
        if "[markdown]" in head:
            cells.append(nbformat.v4.new_markdown_cell(source, id=name))
        else:
            tags = {"tags": [KEEP]} if KEEP in head.split() else {}
            cells.append(nbformat.v4.new_code_cell(source, id=name, metadata=tags))
    return nbformat.v4.new_notebook(cells=cells)


def _name(source, seen):
    count = 0
    while True:
        name = hashlib.sha256(f"{source}{count}".encode()).hexdigest()[:8]
        if name not in seen:
            seen.add(name)
            return name
        count += 1


# ---------------------------------------------------------------------------- running

def executed(notebook):
    """Return a notebook with the outputs of a run from a fresh kernel."""
    from nbclient import NotebookClient

    # a debugger that a kernel may bring along warns of frozen modules
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    client = NotebookClient(notebook, timeout=2 * SECONDS, kernel_name="python3",
                            extra_arguments=["--log-level=ERROR"],
                            resources={"metadata": {"path": str(LESSONS)}})
    client.execute()
    return notebook


def solved(notebook):
    """Return a copy of a notebook with a solution in place of each open exercise."""
    text = (LESSONS / "solutions.py").read_text()
    solutions = {node.name: ast.get_source_segment(text, node) for node in ast.parse(text).body
                 if isinstance(node, ast.FunctionDef)}
    twin = copy.deepcopy(notebook)
    for cell in twin.cells:
        match = re.search(r'^@exercise\("[\d.]+"\)\ndef (\w+)', cell.source, re.MULTILINE)
        if cell.cell_type == "code" and match:
            head = cell.source[:match.start()] + match.group().rpartition("\n")[0]
            cell.source = f"{head}\n{solutions[match.group(1)]}"
    return twin


# ---------------------------------------------------------------------------- cleaning

def cleaned(notebook, path):
    """Return the notebook as it is committed: the kept outputs, and the hash of its sources."""
    for cell in notebook.cells:
        cell.metadata = {"tags": [KEEP]} if KEEP in cell.metadata.get("tags", ()) else {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = kept(cell) if cell.metadata else []
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "tinyalex": {"sources": fingerprint(notebook, path)},
    }
    nbformat.validate(notebook)
    return notebook


def kept(cell):
    """Return the outputs of a cell that is tagged to keep them; refuse what should not be seen."""
    outputs = []
    for output in cell.outputs:
        if output.output_type == "error" or output.get("name") == "stderr":
            text = output.get("text") or output.get("evalue")
            raise Mistake(f"a kept cell shows a warning or an error:\n{text}\nin\n{cell.source}")
        data = output.get("data", {})
        if "image/png" in data:
            data["image/png"] = small(data["image/png"])
            data.pop("text/plain", None)                 # the address of a figure
        output.pop("execution_count", None)
        if output.output_type == "execute_result":
            output = nbformat.v4.new_output("display_data", data=data)
        output.metadata = {} if "data" in output else output.get("metadata")
        if output.metadata is None:
            del output["metadata"]
        outputs.append(output)
    return outputs


def small(text):
    """Return a picture (base64) that is narrow enough and small enough to be committed."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)),
                                 Image.Resampling.LANCZOS)
    data = _png(picture)
    if len(data) > MOST_PICTURE:
        data = _png(picture.quantize(256))
    if len(data) > MOST_PICTURE:
        raise Mistake(f"a kept picture has {len(data):,} bytes; expected at most "
                      f"{MOST_PICTURE:,}: make it smaller, or show less")
    return base64.b64encode(data).decode()


def thumbnail(notebook, path):
    """Write the last kept picture, small, for the map of the lessons."""
    from PIL import Image

    pictures = [output.data["image/png"] for cell in notebook.cells if cell.cell_type == "code"
                for output in cell.outputs if "image/png" in output.get("data", {})]
    if pictures:
        picture = Image.open(io.BytesIO(base64.b64decode(pictures[-1]))).convert("RGB")
        picture.thumbnail((400, 260), Image.Resampling.LANCZOS)
        folder = LESSONS / "pictures"
        folder.mkdir(exist_ok=True)
        (folder / f"{path.name[:2]}.png").write_bytes(_png(picture.quantize(128)))


def _png(picture):
    page = io.BytesIO()
    picture.save(page, "PNG", optimize=True)
    return page.getvalue()


def fingerprint(notebook, path):
    """Return the hash of what outputs come from: all cells, and what open exercises run as."""
    libraries = [inspect.getsource(e.library) for e in checks.lesson(int(path.name[:2]))]
    parts = [f"{cell.cell_type}\0{cell.source}\0{cell.metadata.get('tags', [])}"
             for cell in notebook.cells]
    return hashlib.sha256("\0\0".join([*parts, *libraries]).encode()).hexdigest()


def write(notebook, path):
    """Write a notebook, if it is small enough; return its size in bytes."""
    text = nbformat.writes(notebook, 4)
    if len(text.encode()) > MOST_NOTEBOOK:
        raise Mistake(f"{path.name} would have {len(text.encode()):,} bytes; expected at most "
                      f"{MOST_NOTEBOOK:,}: keep fewer outputs")
    path.write_text(text.rstrip("\n") + "\n")
    return len(text.encode())


def to_html(notebook, path):
    """Write a page with all outputs, to be looked at."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter()
    formulas = importlib.util.find_spec("jupyter_server_mathjax")    # offline, where it is there
    if formulas:
        folder = pathlib.Path(formulas.origin).parent / "static"
        exporter.mathjax_url = f"file://{folder}/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full,Safe"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(exporter.from_notebook_node(notebook)[0])


if __name__ == "__main__":
    sys.exit(console.run(main, PROGRAM))
