"""A run's folder: its log, its pictures and its checkpoints.

::

    runs/shapes-mini/log.jsonl          one row a line, as JSON
    runs/shapes-mini/curves.png         and filters.png, predictions.png
    runs/shapes-mini/checkpoints/       see checkpoint.py
"""
import contextlib
import json
import os
import re
import warnings
from pathlib import Path

from ..data.disk import beside, write_in_order
from .disk import reason

try:
    import fcntl
except ImportError:                      # Windows: two runs in one folder are not noticed there
    fcntl = None


class RunError(RuntimeError):
    """A run's folder that cannot be used; the message says why and what would help."""


class RunNote(UserWarning):
    """Something that went wrong around a run without stopping it."""


class RunFolder:
    """The folder of one run, held by this process alone until :meth:`close`.

    Parameters
    ----------
    path : path
        Made where it is missing.
    resume : bool
        Whether it may hold a run already; its log is then gone on with.

    Attributes
    ----------
    path, checkpoints : pathlib.Path
    held_back : int
        How many rows could not be written so far; they are tried again with the next row.

    Raises
    ------
    RunError
        It cannot be written to, holds a run although `resume` is False, or another process
        is at work in it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with RunFolder(f"{parent}/a") as run:
    ...         run.log({"kind": "train", "step": 1, "loss": 2.5})
    ...         run.rows()
    [{'kind': 'train', 'step': 1, 'loss': 2.5}]
    """

    def __init__(self, path, resume=False):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self._log, self._rows, self._lock = self.path / "log.jsonl", [], None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold()
            if not resume and (self._log.exists() or self.checkpoints.exists()):
                raise RunError(f"{self.path} already holds a run: go on with it by --resume "
                               f"{self.path}, or name another --output-dir")
            beside(self._log).unlink(missing_ok=True)            # what a kill left behind
            # Now, not after an hour of training; and of two that begin at once where there are no
            # locks, "x" lets one only succeed.
            with open(self._log, "ab" if resume else "xb"):
                pass
        except OSError as error:
            self._let_go()
            raise RunError(f"cannot write to {self.path}: {reason(error)}") from None
        except RunError:
            self._let_go()
            raise

    @classmethod
    def fresh(cls, parent, name):
        """Make the folder ``parent/name``, or ``name-2``, ``name-3``, ... where it exists.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     [RunFolder.fresh(parent, "mini").path.name for _ in range(3)]
        ['mini', 'mini-2', 'mini-3']
        """
        number = 1
        while True:
            path = Path(parent) / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)             # of two who try at once, one only succeeds
                return cls(path)
            except FileExistsError:
                if not Path(parent).is_dir():
                    raise RunError(f"cannot write to {parent}: it is not a folder") from None
                number += 1
            except OSError as error:
                raise RunError(f"cannot write to {path}: {reason(error)}") from None

    def log(self, row):
        """Append one row to log.jsonl.

        A disk that refuses does not end the run: a `RunNote` names the fault, the file keeps
        whole rows only, and the row is written with the next one, or with the one after.
        """
        self._rows.append(json.dumps(row, allow_nan=False) + "\n")
        data = "".join(self._rows).encode()
        try:
            with open(self._log, "ab", buffering=0) as file:
                whole = file.seek(0, os.SEEK_END)
                try:
                    while data:
                        data = data[file.write(data):]
                except OSError:
                    file.truncate(whole)
                    raise
            self._rows.clear()
        except OSError as error:
            warnings.warn(f"could not write {self._log}: {reason(error)}; the rows are kept and "
                          "tried again", RunNote, stacklevel=2)

    @property
    def held_back(self):
        return len(self._rows)

    def rows(self):
        """Return all rows of log.jsonl; a line that a kill cut short is left out."""
        rows = []
        for line in self._log.read_bytes().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def go_back(self, step, validated):
        """Drop the rows that a run resumed from `step` is going to write again.

        Parameters
        ----------
        step : int
            The checkpoint's.
        validated : int
            The step of the last validation that the checkpoint knows of.
        """
        last = {"train": step, "val": validated}
        kept = [row for row in self.rows() if row["step"] <= last.get(row["kind"], -1)]
        lines = "".join(json.dumps(row) + "\n" for row in kept).encode()
        if lines != self._log.read_bytes():
            write_in_order((self._log, lines))

    def close(self):
        """Let another process have the folder; one in which nothing came about is removed."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size == 0 and os.listdir(self.path) == [self._log.name]:
                self._log.unlink()
                self.path.rmdir()
        self._let_go()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _hold(self):
        if fcntl is None:
            return
        self._lock = os.open(self.path, os.O_RDONLY)  # of the folder: it leaves no file behind
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._lock), os.stat(self.path)):
                raise BlockingIOError                # removed and made anew, since it was opened
        except BlockingIOError:
            raise RunError(f"another process is training in {self.path}: wait for it, or name "
                           "another --output-dir") from None
        except OSError:                              # a file system without locks
            self._let_go()

    def _let_go(self):
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def newest_run(parent, name):
    """Return the last of ``name``, ``name-2``, ... in `parent` that has checkpoints, or None.

    Examples
    --------
    >>> newest_run("runs", "never-trained") is None
    True
    """
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    paths = Path(parent).iterdir() if Path(parent).is_dir() else ()
    found = [(int(match[1] or 1), path) for path in paths
             if (match := pattern.fullmatch(path.name)) and has_checkpoints(path)]
    return max(found)[1] if found else None


def has_checkpoints(path):
    """Return whether a run's folder holds any checkpoint, whole or not.

    Examples
    --------
    >>> has_checkpoints("runs/never-trained")
    False
    """
    return any((Path(path) / "checkpoints").glob("step-*.safetensors"))
