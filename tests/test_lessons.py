"""The notebooks of the lessons: what is in them, that outputs are fresh, and that they run."""
import ast
import base64
import io
import pathlib
import re
import resource
import sys
import time

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `lessons` brings it")
LESSONS = pathlib.Path(__file__).parent.parent / "lessons"
sys.path.insert(0, str(LESSONS))

import build                          # noqa: E402  (lessons/ is where a notebook runs)
import checks                         # noqa: E402

PATHS = build.notebooks()
EACH = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem[:2])


def cells(path, kind):
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def code(path):
    return "\n".join(cell.source for cell in cells(path, "code"))


def text(path):
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def exercises_of(path):
    return checks.lesson(int(path.name[:2]))


# ---------------------------------------------------------------------------- the file

def test_each_lesson_has_its_notebook():
    assert [path.name[:2] for path in PATHS] == [f"{n:02d}" for n in checks.lessons()]
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name) for path in PATHS)


@EACH
def test_a_notebook_is_valid_and_small(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len(notebook.cells) <= 25 and path.stat().st_size <= build.MOST_NOTEBOOK
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "tinyalex"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"} and cell.get("execution_count") is None
        assert cell.source == cell.source.rstrip() and cell.source


@EACH
def test_outputs_are_fresh(path):
    notebook = nbformat.read(path, 4)
    assert notebook.metadata.tinyalex.sources == build.fingerprint(notebook, path), \
        f"run: python lessons/build.py {path.name[:2]}"


def test_the_fingerprint_sees_what_an_output_comes_from():
    notebook = nbformat.read(PATHS[0], 4)
    before = build.fingerprint(notebook, PATHS[0])
    for change in (lambda n: setattr(n.cells[1], "source", n.cells[1].source + "\n"),
                   lambda n: n.cells[1].metadata.update(tags=["keep"]),
                   lambda n: n.cells.insert(2, n.cells[1])):
        notebook = nbformat.read(PATHS[0], 4)
        change(notebook)
        assert build.fingerprint(notebook, PATHS[0]) != before


@EACH
def test_only_kept_outputs_are_there_and_they_are_small(path):
    from PIL import Image

    pictures = []
    for cell in cells(path, "code"):
        assert bool(cell.outputs) == ("keep" in cell.metadata.get("tags", []))
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data")
            assert output.get("name", "stdout") == "stdout"
            shown = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert "/home" not in shown and "/work" not in shown and "Warning" not in shown
            if "image/png" in output.get("data", {}):
                pictures.append(base64.b64decode(output.data["image/png"]))
    assert pictures, "the picture worth pinning up is kept"
    for data in pictures:
        assert len(data) <= build.MOST_PICTURE
        assert Image.open(io.BytesIO(data)).width <= build.WIDEST
    with Image.open(LESSONS / "pictures" / f"{path.name[:2]}.png") as thumbnail:
        assert max(thumbnail.size) <= 400


# ---------------------------------------------------------------------------- what is in it

@EACH
def test_cells_are_plain_python(path):
    for cell in cells(path, "code"):
        ast.parse(cell.source)                       # a magic or a shell line is no Python
        lines = cell.source.split("\n")
        assert all(len(line) <= 110 for line in lines), "code wider than a page"
        assert len(lines) <= 40, "a cell that does not fit on a screen"
    assert "get_ipython" not in code(path) and "os.system" not in code(path)


@EACH
def test_no_path_of_a_machine(path):
    assert not re.search(r"(/home/|/work/|/Users/|/tmp/|[A-Z]:\\\\)", code(path) + text(path))


@EACH
def test_the_first_line_chooses_the_device(path):
    first = cells(path, "code")[0].source.split("\n")[0]
    assert 'device = ta.Device("cpu:0")' in first
    assert code(path).count("ta.Device(") == 1 or path.name[:2] == "09"   # 09 is about two
    assert re.search(r"\bdevice\b", code(path).split("\n", 1)[1]), "and the rest uses it"


@EACH
def test_chance_is_seeded(path):
    source = code(path)
    assert "ta.manual_seed(" in source or "default_rng(" in source
    assert "default_rng()" not in source and "np.random.rand" not in source


@EACH
def test_a_lesson_has_its_parts(path):
    number, words, source = path.name[:2], text(path), code(path)
    first = cells(path, "markdown")[0].source
    assert first.startswith(f"# {number} · ") and first.count("**Question.**") == 1
    assert "?" in first and "jupyter lab lessons/" in first
    heads = re.findall(r"^## (.*)", words, re.MULTILINE)
    for part in ("The derivation", "Measured", "Exercise", "The picture"):
        assert [head for head in heads if head.startswith(part)], f"no part ## {part}"
    assert len([head for head in heads if head.startswith("Measured")]) == 1
    derivation = words.partition("## The derivation")[2].partition("\n## ")[0]
    assert derivation.count("$$") >= 2, "a formula on a line of its own"
    assert "*In words:*" in words.partition("## The picture")[2], "a line of alt text"
    assert f"progress({int(number)})" in cells(path, "code")[0].source
    last = cells(path, "code")[-1]
    assert [o for o in last.outputs if "image/png" in o.get("data", {})], "the picture ends it"
    assert source.count("progress(") == 1


@EACH
def test_each_exercise_is_asked_open_and_checked(path):
    source, words = code(path), text(path)
    for exercise in exercises_of(path):
        assert source.count(f'@exercise("{exercise.number}")') == 1
        assert source.count(f'check("{exercise.number}")') == 1
        assert f"## Exercise {exercise.number}" in words
        assert f'hint("{exercise.number}")' in words
        cell = next(c.source for c in cells(path, "code")
                    if f'"{exercise.number}")\ndef' in c.source)
        assert cell.endswith("    ..."), "the stub ends its cell"
        args = exercise.call.partition(" ->")[0]
        assert f"def {args}:" in cell
    assert source.count("@exercise(") == len(exercises_of(path)) <= 2
    assert "solutions" not in source
    assert not re.search(r"^hint\(", source, re.MULTILINE), "hints are asked for, not given"


@EACH
def test_words_are_the_projects_own(path):
    words = text(path)
    assert not re.search(r"\b(issue|session|agent|TO" r"DO|colour|neighbour|behaviour)\b", words)
    longest = max(len(paragraph.split()) for paragraph in words.split("\n\n"))
    assert longest <= 130, "a wall of text"


@EACH
def test_the_map_shows_the_lesson(path):
    rows = (LESSONS / "README.md").read_text()
    title = cells(path, "markdown")[0].source.split("\n")[0].removeprefix("# ")
    assert f"![](pictures/{path.name[:2]}.png) | [{title}]({path.name})" in rows


# ---------------------------------------------------------------------------- the tool

DRAFT = '''
# %% [markdown]
# # A title
#
# With $x$.

# %%
a = 1

# %% keep
print(a)
'''


def test_a_draft_becomes_a_notebook():
    notebook = build.from_draft(DRAFT)
    assert [c.cell_type for c in notebook.cells] == ["markdown", "code", "code"]
    assert notebook.cells[0].source == "# A title\n\nWith $x$."
    assert notebook.cells[1].source == "a = 1" and notebook.cells[2].metadata == {"tags": ["keep"]}
    assert [c.id for c in notebook.cells] == [c.id for c in build.from_draft(DRAFT).cells]
    nbformat.validate(notebook)


@EACH
def test_solutions_take_the_place_of_open_exercises(path):
    notebook = nbformat.read(path, 4)
    for before, after in zip(notebook.cells, build.solved(notebook).cells):
        if "@exercise(" in before.source and before.cell_type == "code":
            assert before.source != after.source and "    ..." not in after.source
            ast.parse(after.source)
        else:
            assert before.source == after.source


def test_a_picture_too_wide_is_made_smaller_and_one_too_large_refused(monkeypatch):
    from PIL import Image

    def png(picture):
        return base64.b64encode(build._png(picture)).decode()

    wide = Image.open(io.BytesIO(base64.b64decode(build.small(png(Image.new("RGB", (2000, 50)))))))
    assert wide.size == (960, 24)
    noise = Image.effect_noise((900, 900), 90).convert("RGB")
    with pytest.raises(build.Mistake, match="expected at most 120,000"):
        build.small(png(noise))
    monkeypatch.setattr(build, "MOST_NOTEBOOK", 10)
    with pytest.raises(build.Mistake, match="keep fewer outputs"):
        build.write(build.from_draft(DRAFT), pathlib.Path("never_written.ipynb"))


@pytest.mark.parametrize("argv, said", [
    (["77"], "there is no notebook 77_*.ipynb"), (["nothing.py"], "nothing.py: No such file"),
    (["--htm", "x"], "unrecognized arguments")])
def test_a_mistake_on_the_command_line_is_one_line(argv, said, capsys):
    assert build.console.run(build.main, build.PROGRAM, argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"build.py: {said}") and err.count("\n") == 1


# ---------------------------------------------------------------------------- running

def printed(notebook):
    """All that the cells of a notebook wrote; no cell may have warned."""
    streams = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs
               if o.output_type == "stream"]
    assert not [o.text for o in streams if o.name == "stderr"]
    return "".join(o.text for o in streams)


@pytest.mark.slow
@EACH
@pytest.mark.parametrize("solved", [False, True], ids=["as shipped", "solved"])
def test_a_notebook_runs_from_top_to_bottom(path, solved, monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.setenv("TINYALEX_OFFLINE", "1")
    notebook = nbformat.read(path, 4)
    start, before = time.perf_counter(), busy()
    notebook = build.executed(build.solved(notebook) if solved else notebook)
    # Where others use the machine too, the clock runs on and the processor's time does not.
    assert 0 < min(time.perf_counter() - start, busy() - before) < build.SECONDS
    words = printed(notebook)
    for exercise in exercises_of(path):
        if solved:
            assert f"{exercise.number} solved." in words
        else:
            assert f"{exercise.number} open: using the library's version." in words
    assert "not yet" not in words
    boxes = str(cells_with(notebook, "progress("))
    assert ("□" in boxes) != solved and ("■" in boxes) == solved


def busy():
    """Return the seconds that processors were busy for programs started from here, and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cells_with(notebook, word):
    return [c.outputs for c in notebook.cells if c.cell_type == "code" and word in c.source]


WRONG = '''
# %%
from exercises import check, exercise, hint, progress
import numpy as np
progress(6)

# %%
@exercise("6.1")
def max_pool_backward(gy, x, kernel, stride):
    gx = np.zeros(x.shape)
    for n, c, o, p in np.ndindex(gy.shape):
        h, w = o * stride, p * stride
        i, j = divmod(int(x[n, c, h:h + kernel, w:w + kernel].argmax()), kernel)
        gx[n, c, h + i, w + j] = gy[n, c, o, p]
    return gx

# %%
check("6.1")
'''


@pytest.mark.slow
def test_a_notebook_shows_the_map_of_the_errors_and_later_the_filled_box():
    notebook = build.executed(build.from_draft(WRONG))
    *_, shown = [cell.outputs for cell in notebook.cells]
    assert "one gradient is lost" in shown[0].text
    assert "image/png" in shown[1].data
    assert "□ 6.1" in str(notebook.cells[0].outputs)
    notebook = build.executed(build.from_draft(WRONG.replace("j] = gy", "j] += gy")))
    assert "6.1 solved." in printed(notebook) and "■ 6.1" in str(notebook.cells[0].outputs)
