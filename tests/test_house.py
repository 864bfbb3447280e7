"""The rules of the house that a machine can check."""
import ast
import configparser
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest
import tinyalex as ta

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "tinyalex"
FILES = sorted(PACKAGE.rglob("*.py"))
LAZY = {"PIL", "matplotlib", "cupy", "tqdm", "safetensors", "threadpoolctl", "mpi4py", "onnx"}

FLOORS = {
    "device": 1,
    "tensor": 2, "graph": 2, "random": 2, "kernels": 2,
    "ops": 3, "functional": 3, "trace": 3, "steps": 3, "gradcheck": 3, "gradreport": 3, "viz": 3,
    "data": 3,
    "nn": 4,
    "optim": 5, "models": 5,
    "": 5.5,                                 # tinyalex/__init__.py: the face of floors 1 to 5
    "train": 6, "interop": 6, "doctor": 6, "doctor_gpu": 6,
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(name):
    """The modules of the package that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = name.split(".")
                package = here if MODULES[name].name == "__init__.py" else here[:-1]
                base = ".".join(package[:len(package) - node.level + 1] + [base] * bool(base))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in MODULES else base)
    return {m for m in found if m in MODULES and m != name}


def outside(name, lazily=True):
    """The top-level names of what a module imports from elsewhere."""
    found = set()
    for node in ast.walk(TREES[name]) if lazily else TREES[name].body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def floor(name):
    return FLOORS[(name.split(".") + [""])[1]]


# ---------------------------------------------------------------------------- the floors

def test_every_module_has_a_floor():
    strangers = {name for name in MODULES if (name.split(".") + [""])[1] not in FLOORS}
    assert not strangers, "give these a floor in tests/test_house.py, and in the design"


def test_the_checks_below_see_imports():
    assert {"tinyalex.device", "tinyalex.graph"} <= imports("tinyalex.tensor")
    assert "tinyalex.functional" in imports("tinyalex.nn.layers")
    assert "tinyalex.device.cuda" in imports("tinyalex.device.transfer")
    assert "tinyalex.device.cuda" not in imports("tinyalex.device.core")
    assert "cupy" in outside("tinyalex.device.cuda") and "numpy" in outside("tinyalex.tensor")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_arrow_runs_upward(name):
    upward = {other for other in imports(name) if floor(other) > floor(name)}
    assert not upward, f"{name} (floor {floor(name)}) imports from above"


def test_nothing_runs_in_a_circle():
    below = {name: imports(name) for name in MODULES}
    for name in MODULES:                     # a package's face imports its own modules
        if MODULES[name].name == "__init__.py":
            below[name] = {m for m in below[name] if not m.startswith(name + ".")}
    while True:
        leaves = {name for name, others in below.items() if not others}
        if not leaves:
            break
        below = {name: others - leaves for name, others in below.items() if name not in leaves}
    assert not below


def test_the_engine_knows_no_op():
    for name in ("tinyalex.tensor", "tinyalex.graph"):
        assert imports(name) <= {"tinyalex.device", "tinyalex.graph"}


def test_only_the_device_knows_cupy():
    assert {name for name in MODULES if "cupy" in outside(name)} == {"tinyalex.device.cuda"}


# ---------------------------------------------------------------------------- what import costs

IMPORT = """
import sys, time
import numpy
before, start = set(sys.modules), time.process_time()
import tinyalex
print(time.process_time() - start)
print(*{name.split(".")[0] for name in set(sys.modules) - before})
"""


@pytest.fixture(scope="module")
def imported():
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True,
                          text=True, timeout=60, cwd=ROOT, check=True)
    seconds, names = done.stdout.splitlines()
    return float(seconds), set(names.split())


def test_import_needs_numpy_alone(imported):
    _, names = imported
    assert not names & LAZY
    assert {name for name in names if name not in sys.stdlib_module_names} <= {"tinyalex", "numpy"}


def test_import_takes_well_under_half_a_second(imported):
    seconds, _ = imported
    assert seconds < 0.25                    # of processor time, NumPy's own import not counted


@pytest.mark.parametrize("name", sorted(MODULES))
def test_dependencies_are_imported_where_they_are_used(name):
    assert not outside(name, lazily=False) & LAZY


# ---------------------------------------------------------------------------- files and lines

@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_at_one_sitting(path):
    lines = path.read_text().split("\n")
    assert len(lines) - 1 <= 300
    long = [i for i, line in enumerate(lines, 1) if len(line) > 100]
    assert not long, "lines of more than 100 columns"
    assert not [i for i, line in enumerate(lines, 1) if line != line.rstrip() or "\t" in line]
    assert lines[-1] == "" and lines[-2] != ""


def test_examples_keep_to_a_hundred_columns():
    for path in sorted((ROOT / "examples").rglob("*.py")):
        assert all(len(line) <= 100 for line in path.read_text().split("\n")), path


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_pickle(name):
    assert not outside(name) & {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib",
                                "shelve", "marshal", "multiprocessing", "torch"}
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
        if isinstance(node, ast.Name):
            assert node.id not in ("eval", "exec", "ProcessPoolExecutor")


def test_nothing_is_left_to_do():
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
    for folder in ("tinyalex", "tests", "examples", "lessons", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not words.search(path.read_text()), path


def test_no_exception_is_swallowed_whole():
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"a bare except in {name}"


# ---------------------------------------------------------------------------- words

def public(name):
    """Public functions and classes that a module defines, and the public members of those."""
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield f"{name}.{key}", value
        for member in vars(value) if inspect.isclass(value) else ():
            thing = getattr(value, member)
            if member.startswith("_") or member in ("forward", "backward"):
                continue
            if isinstance(thing, property) and member not in (value.__doc__ or "") \
                    or inspect.isfunction(thing) and thing.__name__ != "<lambda>":
                yield f"{name}.{key}.{member}", thing


@pytest.mark.parametrize("name", sorted(MODULES))
def test_everything_public_is_described(name):
    assert ast.get_docstring(TREES[name]), "a module says what it is for"
    assert not [path for path, thing in public(name) if not inspect.getdoc(thing)]


@pytest.mark.parametrize("face", [ta, ta.functional, ta.nn], ids=lambda face: face.__name__)
def test_the_public_face_shows_examples(face):
    for name in face.__all__:
        thing = getattr(face, name)
        if inspect.ismodule(thing) or inspect.isclass(thing) and issubclass(thing, Exception):
            continue
        assert ">>>" in inspect.getdoc(thing), f"{face.__name__}.{name} has no example"


def test_what_is_offered_is_there():
    for name, path in MODULES.items():
        module = importlib.import_module(name)
        for offered in getattr(module, "__all__", ()):
            assert hasattr(module, offered), f"{name}.__all__ names {offered}"


def test_messages_name_extras_that_exist():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = set()
    for path in [*FILES, ROOT / "README.md"]:
        named |= set(re.findall(r"tinyalex\[(\w+)\]", path.read_text()))
    assert {"cupy", "cupy13"} <= named <= set(config["options.extras_require"])
    needed = config["options"]["install_requires"].split()
    from tinyalex.doctor import DEPENDENCIES
    assert [re.split("[<>=]", line)[0] for line in needed] == list(DEPENDENCIES)
