"""Lesson 11: what must be kept so that a run goes on with the same bits."""
import numpy as np
import tinyalex as ta
from tinyalex import functional as F
from tinyalex import nn, optim

from .judging import Exercise, Wrong

PARTS = {"net": "the weights and biases", "opt": "the optimizer's velocity and rate",
         "random": "the seed and the step of all randomness"}


def snapshot_library(net, opt):
    """Copies of all that the next step depends on."""
    return {"net": net.state_dict(), "opt": opt.state_dict(), "random": ta.random.get_state()}


def resume_library(net, opt, state):
    """Put everything back."""
    net.load_state_dict(state["net"])
    opt.load_state_dict(state["opt"])
    ta.random.set_state(**state["random"])


class Run:
    """A small net with dropout and momentum, on a fixed batch."""

    def __init__(self, seed):
        ta.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
        rng = np.random.default_rng(11 + seed)
        for p in self.net.parameters():
            p.data[...] = rng.normal(0, 0.3, p.shape)
        self.opt = optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        data = np.random.default_rng(11)
        self.x, self.labels = data.normal(size=(32, 8)).astype(np.float32), np.arange(32) % 4

    def train(self, steps):
        """Return the loss of each of some steps."""
        losses = []
        for _ in range(steps):
            loss = F.cross_entropy(self.net(ta.Tensor(self.x)), self.labels)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            losses.append(loss.item())
        return losses

    def at_the_break(self):
        """Train for eight steps; the learning rate falls before the last of them."""
        self.train(7)
        self.opt.lr = 0.03
        self.train(1)
        return self


def check_snapshot(ask):
    """What is kept, whether it is a copy, and whether the curve goes on."""
    with _seed_kept():
        run = Run(0).at_the_break()
        truth = snapshot_library(run.net, run.opt)
        state = ask(run.net, run.opt)
        judge_state(state, truth)
        kept = run.train(8)
        judge_state(state, truth, "after the run has gone on for eight steps")
        other = Run(1)
        resume_library(other.net, other.opt, state)
        return judge_curves(kept, other.train(8))


def judge_state(state, truth, when=""):
    """Raise Wrong unless `state` holds what `truth` does."""
    if not isinstance(state, dict):
        raise Wrong(f"snapshot returned a {type(state).__name__}; expected a dict.")
    for part, what in PARTS.items():
        if part not in state:
            raise Wrong(f'The state has no "{part}": {what}.')
        if not isinstance(state[part], dict):
            raise Wrong(f'state["{part}"] is a {type(state[part]).__name__}; expected a dict.')
        lost = [key for key in truth[part] if key not in state[part]]
        if lost:
            raise Wrong(f'state["{part}"] has no {", ".join(map(repr, lost[:3]))}; '
                        f'{part}\'s own has {", ".join(map(repr, list(truth[part])[:4]))}.')
    judge_arrays("net", state["net"], truth["net"], when)
    momentum, true = state["opt"]["momentum"], truth["opt"]["momentum"]
    if set(true) - set(momentum):
        raise Wrong(f"The velocity of {len(set(true) - set(momentum))} of {len(true)} parameters "
                    "is missing. The next step begins with momentum times the last one.")
    judge_arrays("velocity", momentum, true, when)
    if state["opt"]["lr"] != truth["opt"]["lr"]:
        raise Wrong(f"The learning rate is {state['opt']['lr']}, and it is {truth['opt']['lr']} at "
                    "this moment: it has fallen since the run began.")
    for key in ("seed", "step"):
        if state["random"][key] != truth["random"][key]:
            raise Wrong(f'The {key} of the randomness is {state["random"][key]}; it is '
                        f'{truth["random"][key]} at this moment. Dropout masks depend on it.')


def judge_arrays(kind, mine, true, when):
    """Raise Wrong unless each array of a part is there to the bit."""
    for name, want in true.items():
        got = mine[name]
        if np.shape(got) != want.shape:
            raise Wrong(f"The {kind} {name} has shape {np.shape(got)}; expected {want.shape}.")
        if np.array_equal(got, want):
            continue
        if when:
            raise Wrong(f"The {kind} {name} was right, but {when} the state has changed with it. "
                        "They share their memory: keep a copy.")
        if np.allclose(got, want, rtol=1e-2, atol=1e-3):
            raise Wrong(f"The {kind} {name} is rounded: nearly right is not the same bits.")
        raise Wrong(f"The {kind} {name} is not what it is at this moment: the first number is "
                    f"{np.ravel(got)[0]:.6g}, expected {np.ravel(want)[0]:.6g}.")


def check_resume(ask):
    """Whether everything is put back, twice, and the curve goes on."""
    with _seed_kept():
        run = Run(0).at_the_break()
        truth = snapshot_library(run.net, run.opt)
        kept = run.train(8)
        for again in (False, True):
            other = Run(1 + again)
            other.train(2)
            untouched = other.net.state_dict()
            given = {"net": {k: a.copy() for k, a in truth["net"].items()},
                     "opt": {**truth["opt"], "momentum": {
                         k: a.copy() for k, a in truth["opt"]["momentum"].items()}},
                     "random": dict(truth["random"])}
            ask(other.net, other.opt, given)
            now = snapshot_library(other.net, other.opt)
            if _equal(now["net"], untouched):
                raise Wrong("After your resume the net is as it was before. Write into the net "
                            "that you are given: a new name inside a function changes nothing "
                            "outside.")
            try:
                judge_state(now, truth)
            except Wrong as wrong:
                raise Wrong("After your resume, something is not as in the state. "
                            + wrong.text) from None
            praise = judge_curves(kept, other.train(8))
            if not _equal(given["net"], truth["net"]) or not _equal(
                    given["opt"]["momentum"], truth["opt"]["momentum"]):
                raise Wrong("The run that goes on writes into your state, so a second resume from "
                            "it would start elsewhere. Copy what you take out.")
        return praise


def _equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in b)


def judge_curves(kept, resumed):
    """Raise Wrong unless both curves are the same to the bit."""
    for step, (a, b) in enumerate(zip(kept, resumed, strict=True), 1):
        if a != b:
            raise Wrong(f"The curves part in step {step} after the break: {a!r} without it, {b!r} "
                        "with it.")
    return "Broken off and resumed, the loss goes on with the same bits."


class _seed_kept:
    """Context: the seed and step of all randomness are as before afterwards."""

    def __enter__(self):
        self.state = ta.random.get_state()

    def __exit__(self, *_):
        ta.random.set_state(**self.state)


MAY_CALL = ("tinyalex.nn", "tinyalex.optim", "tinyalex.random", "tinyalex.tensor",
            "tinyalex.device")
EXERCISES = (
    Exercise(
        number="11.1",
        title="keep all that the next step needs",
        call="snapshot(net, opt) -> dict with net, opt and random",
        library=snapshot_library,
        check=check_snapshot,
        hints=(
            "What does the next step depend on? The weights; but also on what the optimizer "
            "remembers, and on which dropout masks come next.",
            "net.state_dict() and opt.state_dict() give copies. ta.random.get_state() gives the "
            "seed and the step, and all masks are a function of these.",
            'return {"net": net.state_dict(), "opt": opt.state_dict(), '
            '"random": ta.random.get_state()}',
        ),
        may_call=MAY_CALL,
    ),
    Exercise(
        number="11.2",
        title="put it all back",
        call="resume(net, opt, state) -> None",
        library=resume_library,
        check=check_resume,
        hints=(
            "For everything that snapshot took out there is a way back in.",
            "net.load_state_dict and opt.load_state_dict take what state_dict gave; "
            "ta.random.set_state(seed, step) sets the randomness.",
            "Three lines:\n"
            '    net.load_state_dict(state["net"])\n'
            '    opt.load_state_dict(state["opt"])\n'
            '    ta.random.set_state(**state["random"])',
        ),
        may_call=MAY_CALL,
    ),
)
