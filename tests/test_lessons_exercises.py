"""The exercises of the lessons: right answers pass, wrong ones fail with their own words."""
import functools
import inspect
import itertools
import pathlib
import sys
import threading
import time
from unittest import mock

import numpy as np
import pytest
import tinyalex as ta
from lessons_answers import load

LESSONS = pathlib.Path(__file__).parent.parent / "lessons"
sys.path.insert(0, str(LESSONS))

import checks                         # noqa: E402  (lessons/ is where a notebook runs)
import exercises                      # noqa: E402
import solutions                      # noqa: E402
from checks import guard              # noqa: E402

RIGHT, WRONG = load()
EXERCISES = {e.number: e for n in checks.lessons() for e in checks.lesson(n)}
EACH = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=lambda e: e.number)


def named(pairs):
    return [pytest.param(number, *rest, id=f"{number}-{rest[0].__name__}")
            for number, *rest in pairs]


def as_student(fn):
    """A solution as a student would have it: its source, run in a namespace of its own."""
    space = {"__name__": "__main__", "np": np, "ta": ta}
    source = inspect.getsource(fn)
    exec(compile(source, "<a cell>", "exec"), space)
    return space[fn.__name__]


# ---------------------------------------------------------------------------- answers

@pytest.mark.parametrize("number, fn", named((n, f) for n, fns in RIGHT.items() for f in fns))
def test_a_right_answer_passes(number, fn):
    found = exercises.verdict(number, fn)
    assert found.ok, found
    assert found.text.startswith(f"{number} solved. ") and not found.maps


@pytest.mark.parametrize("number, fn, says",
                         named((n, f, s) for n, fns in WRONG.items() for f, s in fns))
def test_a_wrong_answer_fails_with_its_own_words(number, fn, says):
    found = exercises.verdict(number, fn)
    assert not found.ok
    assert says in found.text, found.text
    others = [s for f, s in WRONG[number] if f is not fn]
    assert says not in others
    assert not [s for s in others if s in found.text], "and with nobody else's"


@EACH
def test_each_exercise_has_its_answers(exercise):
    assert len(WRONG[exercise.number]) >= 8 and len(RIGHT[exercise.number]) >= 3
    assert len(set(RIGHT[exercise.number])) >= 3
    assert set(RIGHT) == set(WRONG) == set(EXERCISES)


@EACH
def test_the_solution_passes(exercise):
    fn = getattr(solutions, exercise.name)
    found = exercises.verdict(exercise.number, as_student(fn))
    assert found.ok, found


@EACH
def test_a_check_is_quick(exercise):
    fn = RIGHT[exercise.number][0]
    start = time.process_time()
    exercises.verdict(exercise.number, fn)
    assert time.process_time() - start < 5


# ---------------------------------------------------------------------------- open

def stub():
    ...


def stub_with_words():
    """What is asked."""
    ...


def test_a_stub_is_seen():
    assert exercises.is_open(stub) and exercises.is_open(stub_with_words)
    assert exercises.is_open(lambda: None)
    for fn in (lambda: 5, lambda x: x, as_student, itertools.chain, lambda x: None or x):
        assert not exercises.is_open(fn)


@EACH
def test_an_open_exercise_runs_as_the_librarys(exercise, capsys):
    before = dict(exercises._written)
    try:
        fn = exercises.exercise(exercise.number)(stub)
        assert f"{exercise.number} open: using the library's version." in capsys.readouterr().out
        assert exercises._written[exercise.number] is stub
        assert fn is not stub and fn.__name__ == "stub"
        found = exercises.verdict(exercise.number)
        assert not found.ok and "open" in found.text
        exercises.progress(int(exercise.number.split(".")[0]))
        assert f"□ {exercise.number}" in capsys.readouterr().out
    finally:
        exercises._written.clear()
        exercises._written.update(before)


# ---------------------------------------------------------------------------- cheating

def cheats(exercise):
    """Ways around an exercise, each a function of its arguments."""
    library, solution = exercise.library, getattr(solutions, exercise.name)

    def caught(*args, **kw):
        try:
            return library(*args, **kw)
        except Exception:
            return library(*args, **kw)

    def imported_afresh(*args, **kw):
        sys.modules.pop("solutions")
        try:
            import solutions as fresh
        finally:
            sys.modules["solutions"] = solutions
        return getattr(fresh, exercise.name)(*args, **kw)

    def in_a_thread(*args, **kw):
        result = []
        worker = threading.Thread(target=lambda: result.append(library(*args, **kw)))
        with mock.patch("threading.excepthook"):
            worker.start()
            worker.join()
        return result[0] if result else None

    def guard_lowered(*args, **kw):
        sys.setprofile(None)
        return library(*args, **kw)

    yield from (library, solution, caught, imported_afresh, in_a_thread, guard_lowered)
    yield lambda *args, **kw: exercises.exercise(exercise.number)(stub)(*args, **kw)
    yield functools.partial(solution)


@EACH
def test_a_check_cannot_be_passed_by_calling_what_it_asks_for(exercise):
    for cheat in cheats(exercise):
        found = exercises.verdict(exercise.number, cheat)
        assert not found.ok
        assert "asks" in found.text or "keeps its guard up" in found.text, found.text
        assert "switched off" in found.text or "your own code" in found.text \
            or "guard" in found.text
        assert sys.getprofile() is None and threading.getprofile() is None


def calls():
    """Every function of the public face, and both directions of every op."""
    for name in ta.functional.__all__:
        yield f"F.{name}", getattr(ta.functional, name)
    for family in vars(ta.ops).values():
        for name, thing in list(vars(family).items()) if inspect.ismodule(family) else ():
            if inspect.isclass(thing) and issubclass(thing, ta.Function) \
                    and thing is not ta.Function and hasattr(thing, "forward"):
                yield f"{name}.forward", thing.forward
                yield f"{name}.backward", thing.backward


@EACH
def test_no_op_of_the_library_may_be_called_unless_it_is_listed(exercise):
    seen = 0
    for name, fn in calls():
        needed = [p for p in inspect.signature(fn).parameters.values()
                  if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        with pytest.raises(guard.Refused, match="asks you to write this yourself"):
            guard.guarded(fn, exercise.number, exercise.may_call)(*[None] * len(needed))
        seen += 1
    assert seen > 60


def test_what_is_listed_may_be_called():
    x, ask = np.ones((1, 1, 3, 3)), ["tinyalex.ops.conv.im2col"]
    geometry = (2, 2), (1, 1), ((0, 0), (0, 0)), (2, 2)

    def student():
        from tinyalex.ops.conv import im2col
        return im2col(np, x, *geometry).shape

    assert guard.guarded(student, "4.1", ask)() == (1, 1, 2, 2, 2, 2)
    with pytest.raises(guard.Refused, match=r"so ops.conv.im2col is switched off .* call: NumPy\."):
        guard.guarded(student, "4.1")()


def test_the_guard_puts_back_what_watched_before():
    def other(*_):
        pass

    def fails():
        raise ZeroDivisionError

    sys.setprofile(other)
    try:
        with pytest.raises(ZeroDivisionError):
            guard.guarded(fails, "4.1")()
        assert sys.getprofile() is other
    finally:
        sys.setprofile(None)


# ---------------------------------------------------------------------------- words

@EACH
def test_three_hints_and_each_says_more(exercise, capsys):
    exercises._hinted.clear()
    assert len(exercise.hints) == 3 and len(set(exercise.hints)) == 3
    for step in (1, 2, 3, 3):
        exercises.hint(exercise.number)
        out = capsys.readouterr().out
        assert out.startswith(f"Hint {step} of 3 for {exercise.number}. ")
        assert exercise.hints[step - 1].split() == out.split()[6:]
        assert max(map(len, out.split("\n"))) <= 92
    exercises.hint(exercise.number, 1)
    assert "Hint 1 of 3" in capsys.readouterr().out
    with pytest.raises(ValueError, match="expected 1 to 3"):
        exercises.hint(exercise.number, 4)


@EACH
def test_the_call_is_that_of_the_solution(exercise):
    solution = inspect.signature(getattr(solutions, exercise.name))
    assert exercise.call.startswith(f"{exercise.name}{solution} ->".replace("'", ""))
    library = inspect.signature(exercise.library)
    assert list(library.parameters) == list(solution.parameters)
    assert getattr(solutions, exercise.name).__doc__.startswith(exercise.number)


def test_a_check_shows_the_map_and_fills_the_box(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(exercises, "draw", lambda *what: shown.append(what))
    fn, says = next((f, s) for f, s in WRONG["6.1"] if f.__name__ == "written_over")
    exercises.exercise("6.1")(fn)
    exercises.check("6.1")
    assert says in capsys.readouterr().out
    (title, right, yours), = shown
    assert title == "6.1: the errors of gx" and right.shape == yours.shape == (2, 3, 7, 9)
    assert (right != yours).any()
    exercises.exercise("6.1")(RIGHT["6.1"][0])
    exercises.check("6.1")
    exercises.progress(6)
    out = capsys.readouterr().out
    assert "6.1 solved" in out and "■ 6.1" in out
    exercises._written.clear()
    exercises.check("6.1")
    assert "not defined yet" in capsys.readouterr().out


def test_a_wrong_number_is_refused():
    with pytest.raises(ValueError, match="there is no exercise '4.7'"):
        exercises.check("4.7")
    with pytest.raises(ValueError, match="there is no lesson 40"):
        exercises.progress(40)


def test_a_student_can_stop_anywhere_and_is_told_where():
    def conv2d_backward(gy, x, w, stride, padding, groups):
        return gy[99], x, w

    def few(gy, x):
        return gy

    found = exercises.verdict("4.1", conv2d_backward)
    assert "stopped in its line `return gy[99], x, w` with IndexError" in found.text
    assert "is called as conv2d_backward(gy, x, w, stride" in exercises.verdict("4.1", few).text


def test_files_are_short():
    for path in [*LESSONS.rglob("*.py"), *pathlib.Path(__file__).parent.glob("lessons_answers/*")]:
        if path.suffix == ".py":
            lines = path.read_text().split("\n")
            assert len(lines) <= 301 and max(map(len, lines)) <= 100, path
