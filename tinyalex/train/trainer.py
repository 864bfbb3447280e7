"""The training loop, to be read from top to bottom.

A run is a fixed number of steps, never a clock. Everything drawn at random is a function of
(seed, step, place), so a run that was stopped and resumed ends with the same bits as one that was
not. Paper section 5: batches of 128, momentum 0.9, decay 0.0005, and the learning rate divided by
ten when the validation error stops improving.

A GPU is never waited for within a step: what a step said is read when the next one is launched.
"""
import contextlib
import math
import time
import warnings
from collections import deque

from .. import functional as F
from .. import optim, random
from ..data import Loader, statistics
from . import pictures, rates, restore
from .checkpoint import CheckpointError, NotFinite, pointed, save
from .evaluate import Tally, measure, shown
from .progress import Progress, Stop, StuckWatch, Waiting
from .ranks import SOLO
from .rundir import RunNote

REDRAW_SECONDS = 60       # curves.png is drawn anew while a long run goes on


class Diverged(RuntimeError):
    """The loss became NaN or infinite; the message says when, and what was saved before."""


class Trainer:
    """One run: a net, a recipe and pictures in; a log, pictures and checkpoints out.

    Parameters
    ----------
    net : Module
        Takes (N, 3, S, S), gives (N, classes).
    recipe : Recipe
        Batch size, learning rates, schedule, epochs and the preparation of the pictures.
    train, val : Dataset
    run : RunFolder
        Closed when :meth:`fit` returns.
    options : dict
        Kept in the checkpoints, for whoever resumes: what JSON can hold.
    steps : int, optional
        The run's length, where it is not the recipe's epochs.
    workers : int
        Threads that prepare pictures.
    print_freq, save_freq, check_freq : int
        Steps between two rows of the log, two checkpoints, and two looks whether all ranks hold
        the same weights; each epoch ends with one besides, and 0 stands for no others.
    resume : (arrays, meta), optional
        A checkpoint to go on from, as `restore.read` gives it.
    warmup : float
        Epochs over which the learning rate climbs to what it is.
    ranks : Ranks, optional
        The processes that train together, each on its share of every batch; see `parallel`.

    Attributes
    ----------
    step, steps : int
        Done so far, and to do in all.
    score : Score or None
        The last validation's.
    best : float or None
        The lowest top-1 error so far, in percent.

    Raises
    ------
    CheckpointError
        The checkpoint does not belong to this net or to these pictures.

    Notes
    -----
    The seed is the global one: call :func:`tinyalex.manual_seed` before the net is built.
    """

    def __init__(self, net, recipe, train, val, run, options=None, *, steps=None, workers=2,
                 print_freq=50, save_freq=0, resume=None, warmup=0, ranks=SOLO, check_freq=100):
        self.net, self.recipe, self.run, self.options = net, recipe, run, options or {}
        self.train, self.val = train, val
        self.print_freq, self.save_freq, self.check_freq = print_freq, save_freq, check_freq
        self.ranks, share = ranks, {"workers": workers, "rank": ranks.rank, "ranks": ranks.size}
        seed = random.get_state()["seed"]
        self.statistics = restore.statistics(resume[0]) if resume else statistics(train, seed)
        self.augment = restore.augment(recipe, self.statistics)
        self.optimizer = optim.SGD(net.parameters(), recipe.lr, recipe.momentum,
                                   recipe.weight_decay, recipe.bias_lr)
        home = self.optimizer.params[0].device
        self.loader = Loader(train, recipe.batch_size, self.augment, seed, device=home, **share)
        self.val_loader = Loader(val, recipe.batch_size, self.augment, seed, shuffle=False,
                                 mode="center", device=home, **share)
        self.unread, self.late = deque(), int(home.kind == "cuda")
        self.epoch_steps = len(self.loader)
        self.steps = steps or recipe.epochs * self.epoch_steps
        self.warmup = round(warmup * self.epoch_steps)
        self.schedule = rates.schedule(recipe, self.optimizer, self.steps, self.epoch_steps)
        self.step, self.validated, self.score, self.best = 0, 0, None, None
        self.saved_step, self.tally, self.skipped = None, Tally(), set()
        if resume:
            restore.go_on(self, *resume)
        self.stuck = StuckWatch(train.labels, len(train.classes), self.step)

    # ---- the loop

    def fit(self):
        """Train until all steps are done, or until Ctrl-C.

        Returns
        -------
        Score or None
            The last validation's. None after Ctrl-C or SIGTERM: all is saved, and a Trainer
            made with `resume` goes on to the same bits.

        Raises
        ------
        Diverged
            The loss is no longer finite; the last checkpoint is from before that.
        CheckpointError
            The last checkpoint could not be written. (Earlier failures only warn.)
        OutOfMemory
            A GPU has no room for a batch; what was saved before stays.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.run)
            self.progress = stack.enter_context(Progress(self.steps, self.step))
            self.stop = stack.enter_context(Stop())
            self.drawn = time.perf_counter()
            self._start_clock()
            self.ranks.must_match(self.step, self.net)
            self._validate_if_due()                   # Ctrl-C may have come in the middle of it
            for batch in stack.enter_context(contextlib.closing(self._batches())):
                self._train_on(batch)
                if self._is_time(self.check_freq):
                    self.ranks.must_match(self.step, self.net)
                if self._is_time(self.print_freq):
                    self._log_training()
                validated = self._validate_if_due()   # which saves, too
                if self._stopped():
                    break
                if self._is_time(self.save_freq) and not validated:
                    self._save()
            finished = self.validated == self.steps
            self._save(must=True)
            self._draw(finished)
            return self.score if finished else None

    def _batches(self):
        while self.step < self.steps:
            epoch, start = divmod(self.step, self.epoch_steps)
            with contextlib.closing(self.loader.batches(epoch, start)) as batches:
                for batch in batches:
                    yield batch
                    if self.step == self.steps:
                        return

    def _train_on(self, batch):
        self._note_skipped(batch)
        own = len(batch.labels)
        (whole,) = self.ranks.total(own)
        if own:                                       # none where every picture of it is broken
            with random.rows_at(batch.rows):
                logits = self.net(shown(batch.images))                # (N, classes)
            loss = F.cross_entropy(logits, batch.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.unread.append((self.step + 1, whole, batch.labels,
                                *(t.device.fetch(t.data) for t in (loss, logits))))
        if whole:
            self.ranks.average(self.optimizer.params, own / whole)
            with rates.climbing(self.optimizer, self.step, self.warmup):
                self.optimizer.step()
            self._read(self.late)
        self.step += 1
        if not self.recipe.plateau:
            self.schedule.step()
        self.progress.step(self._line())

    def _read(self, late=0):
        """Take note of what all steps but the last `late` said; a GPU must be done with those."""
        while len(self.unread) > late:
            step, whole, labels, loss, logits = self.unread.popleft()
            value = float(loss.result())
            self._must_be_finite(value, f"in step {step:,}")
            self.tally.add(value, logits.result(), labels)
            self.seen += whole

    def _validate_if_due(self):
        if self.step == self.validated or not self._is_time(0):
            return False
        try:
            score = measure(self.net, self._until_stopped(self.val_loader.batches(0)), self.ranks)
        except KeyboardInterrupt:                     # whoever resumes begins with it
            return False
        self._must_be_finite(score.loss, f"in the validation after step {self.step:,}")
        self.score, self.validated = score, self.step
        is_best = self.best is None or score.top1 < self.best
        self.best = score.top1 if is_best else self.best
        self.run.log({"kind": "val", **self._place(), **score.row()})
        self.progress.say(f"epoch {self.step / self.epoch_steps:.3g}, step {self.step:,}: "
                          f"loss {score.loss:.3f}, {score}")
        if self.recipe.plateau and self.schedule.step(score.top1):
            self.progress.say(f"no better for {self.recipe.plateau} epochs: learning rate "
                              f"{self.optimizer.lr:g} from here")
        self._save(is_best)
        if time.perf_counter() - self.drawn > REDRAW_SECONDS:
            self._draw()
        self._start_clock()
        return True

    def _until_stopped(self, batches):
        with contextlib.closing(batches):
            for batch in batches:
                if self._stopped():
                    raise KeyboardInterrupt
                self._note_skipped(batch)
                yield batch

    def _stopped(self):                               # whichever rank was asked to
        return self.ranks.total(self.stop.asked) != [0]

    def _is_time(self, freq):
        """Whether a multiple of `freq` steps is done, or an epoch, or everything."""
        return (self.step % self.epoch_steps == 0 or self.step == self.steps
                or freq > 0 and self.step % freq == 0)

    # ---- what is said and written

    def _place(self):
        return {"step": self.step, "epoch": round(self.step / self.epoch_steps, 4),
                "lr": self.optimizer.lr}

    def _start_clock(self):
        self.seen, self.clock, self.waiting = 0, time.perf_counter(), Waiting(self.loader)

    def _images_per_s(self):
        return self.seen / max(time.perf_counter() - self.clock, 1e-9)

    def _line(self):
        if not self.tally:
            return "no picture yet"
        mean = self.tally.score()
        return (f"{self._images_per_s():,.0f} images/s, loss {mean.loss:.3f}, "
                f"errors {mean.top1:.1f}/{mean.top5:.1f} %{self.waiting}")

    def _log_training(self):
        self._read()
        self.tally = self.ranks.pooled(self.tally)
        if self.tally:
            mean = self.tally.score()
            self.run.log({"kind": "train", **self._place(), **mean.row(),
                          "images_per_s": round(self._images_per_s(), 1), **self.waiting.row()})
            self.progress.row(self._line())
            self.stuck.look(self.step, mean.loss, self.optimizer.lr)
        self.tally = Tally()
        self._start_clock()

    def _note_skipped(self, batch):
        for line in self.ranks.lines(batch.skipped):
            if line not in self.skipped and len(self.skipped) < 5:
                self.progress.say(f"left out: {line}")
            self.skipped.add(line)

    def _must_be_finite(self, loss, where):
        if not math.isfinite(loss):
            self._diverged(f"the loss became {loss} {where}")

    def _diverged(self, what):
        raise Diverged(f"{what}; {self.last_checkpoint()}")

    def last_checkpoint(self):
        """Return in words which checkpoint a failed run can be resumed from."""
        path = pointed(self.run.checkpoints)
        return f"the last good checkpoint is {path}" if path else "there is no checkpoint yet"

    def _save(self, best=False, must=False):
        if self.ranks.gather(self.saved_step)[0] == self.step:
            return
        self._read()
        self.tally = self.ranks.pooled(self.tally)
        self.ranks.must_match(self.step, self.net)
        if not self.ranks.leads:
            return
        try:
            save(self.run.checkpoints, *restore.state_of(self), best=best)
            self.saved_step = self.step
        except NotFinite as error:
            self._diverged(f"after step {self.step:,} {error}")
        except CheckpointError as error:
            if must:
                raise
            warnings.warn(f"{error}; training goes on; {self.last_checkpoint()}", RunNote,
                          stacklevel=2)

    def _draw(self, everything=False):
        if self.ranks.leads:
            pictures.draw(self, everything)
        self.drawn = time.perf_counter()
