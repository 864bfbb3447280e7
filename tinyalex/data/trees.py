"""Folders of classes and the text files beside them: what is a class, a picture, a name."""
import os
from collections import Counter

from .dataset import DataError
from .pictures import SUFFIXES

NAME_FILES = ("words.txt", "LOC_synset_mapping.txt", "synset_words.txt")   # wnid, then its names


def class_folders(top):
    """Return the names of the folders (or links to folders) in `top`, sorted; hidden ones not."""
    return sorted(entry.name for entry in _entries(top) if entry.is_dir())


def picture_files(folder):
    """Return the paths of all JPEG and PNG files under `folder`, relative to it, sorted.

    Links are followed, each folder is entered once (a link to a folder above ends there), and
    hidden files and files of other kinds are passed over.
    """
    found, waiting, seen = [], [""], set()
    while waiting:
        inner = waiting.pop()
        place = os.path.join(folder, inner)
        if os.path.realpath(place) in seen:
            continue
        seen.add(os.path.realpath(place))
        for entry in _entries(place):
            path = f"{inner}/{entry.name}" if inner else entry.name
            if entry.is_dir():
                waiting.append(path)
            elif entry.name.lower().endswith(SUFFIXES):
                found.append(path)
    return sorted(found)


def names_of(where, folders):
    """Return readable class names from a list beside train/, or else the folders' names.

    A line is ``n01443537<tab>goldfish, Carassius auratus``; the first name is taken, or all of
    them where two classes share it (ImageNet has two cranes, the bird and the machine).
    """
    path = next((path for path in (os.path.join(where, name) for name in NAME_FILES)
                 if os.path.isfile(path)), None)
    if path is None:
        return tuple(folders)
    full = {}
    for number, line in _lines(path):
        wnid, _, names = line.replace("\t", " ", 1).partition(" ")
        if not names.strip():
            raise DataError(f"{path}: line {number} is {line!r}; expected a wnid and its names")
        full[wnid] = names.strip()
    return short_names(folders, [full.get(folder, folder) for folder in folders])


def short_names(folders, full):
    """Return the first name of each class, or more where two classes share it.

    Examples
    --------
    >>> short_names(("n1", "n2", "n3"), ("tench, Tinca tinca", "crane, a bird", "crane, a machine"))
    ('tench', 'crane, a bird', 'crane, a machine')
    >>> short_names(("n1", "n2"), ("crane", "crane"))
    ('crane (n1)', 'crane (n2)')
    """
    names = _once([name.split(",")[0].strip() for name in full], full)
    return tuple(_once(names, [f"{n} ({f})" for n, f in zip(names, folders, strict=True)]))


def _once(names, longer):
    """Replace the names that occur more than once by their longer forms."""
    count = Counter(names)
    return [name if count[name] == 1 else long
            for name, long in zip(names, longer, strict=True)]


def read_wnids(path):
    """Return the class folders that Tiny ImageNet's wnids.txt lists, one to a line."""
    return [line.strip() for _, line in _lines(path)]


def read_annotations(path, folders):
    """Return the files and labels that Tiny ImageNet's val_annotations.txt lists.

    A line is ``val_0.JPEG<tab>n03444034<tab>0<tab>32<tab>44<tab>62``; the box is not used.

    Raises
    ------
    DataError
        If a line is malformed, names a class unknown to train/ or a picture that is not there,
        or a picture has no line.
    """
    index = {folder: label for label, folder in enumerate(folders)}
    images = os.path.join(os.path.dirname(path), "images")
    if not os.path.isdir(images):
        raise DataError(f"{images}: no such folder; {os.path.basename(path)} labels its pictures")
    waiting = set(picture_files(images))
    files, labels = [], []
    for number, line in _lines(path):
        name, *rest = line.split("\t")
        if not rest or rest[0] not in index:
            raise DataError(f"{path}: line {number} is {line[:80]!r}; expected a file, a tab and "
                            f"a class of train/, like {folders[0]}")
        if name not in waiting:
            raise DataError(f"{path}: line {number} names {name!r}, which is not in {images} or "
                            "has a line already")
        waiting.remove(name)
        files.append(f"images/{name}")
        labels.append(index[rest[0]])
    if waiting or not files:
        raise DataError(f"{path}: {len(files)} lines for {len(files) + len(waiting)} pictures "
                        f"({min(waiting, default='none')}); expected one for each")
    return files, labels


def _entries(folder):
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as problem:
        raise DataError(f"{folder}: {problem.strerror}; expected a readable folder") from None


def _lines(path):
    """Yield (number, line) for the lines that are not blank."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror}; expected a readable file") from None
