"""Archives shaped like ImageNet's of 2012, made of a few small pictures."""
import gzip
import io
import tarfile

import numpy as np
from PIL import Image

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
# In the kit's order, which is not that of the wnids.
SYNSETS = [("n02119789", "kit fox, Vulpes macrotis"), ("n03126707", "crane"),
           ("n01440764", "tench, Tinca tinca"), ("n02012849", "crane, a bird")]
TRUTH = [3, 1, 2, 4, 4, 1, 3]


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(label, i, mode="RGB", kind="JPEG"):
    """The bytes of a smooth, noisy picture; no two are alike."""
    rng = np.random.default_rng([label, i])
    height, width = rng.integers(36, 60, 2)
    levels = rng.integers(0, 160, (4, 5, 3), np.uint8)
    levels[..., label % 3] += 90
    image = Image.fromarray(levels).resize((int(width), int(height)), Image.Resampling.BICUBIC)
    return encoded(image.convert(mode), kind)


def train_pictures(each=9):
    """{wnid: {file name: bytes}}, of all kinds that ImageNet has, and one that is broken."""
    found = {wnid: {f"{wnid}_{10 * i + label}.JPEG": picture(label, i) for i in range(each)}
             for label, (wnid, _) in enumerate(SYNSETS)}
    first = list(found.values())[0]
    for i, change in enumerate([lambda i: picture(0, i, "CMYK"), lambda i: picture(0, i, "L"),
                                lambda i: picture(0, i, kind="PNG"),
                                lambda i: picture(0, i)[:300]]):
        first[list(first)[i]] = change(i)
    return found


def val_pictures():
    return {f"ILSVRC2012_val_{i:08d}.JPEG": picture(number - 1, 1000 + i)
            for i, number in enumerate(TRUTH, 1)}


def member(name, data=b"", kind=tarfile.REGTYPE, link="", size=None):
    """A member's header and content, as bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data) if size is None else size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def tar(files, extra=b""):
    """A whole tar of {name: bytes}, with what `extra` adds as it is."""
    data = b"".join(member(name, content) for name, content in files.items()) + extra
    return data + bytes(1024) + bytes(-(len(data) + 1024) % 10240)


def meta(synsets=SYNSETS, counts=None):
    """meta.mat: the leaves, and a class of classes behind them."""
    from scipy.io import savemat

    kind = np.dtype([(name, object) for name in (
        "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
        "num_train_images")])
    rows = [(float(i), wnid, words, "a thing", 0.0, np.zeros(0), 0.0,
             float((counts or {}).get(wnid, 9))) for i, (wnid, words) in enumerate(synsets, 1)]
    rows.append((float(len(rows) + 1), "n00001740", "entity", "all", 2.0, np.array([1.0, 2.0]),
                 9.0, 0.0))
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, kind).reshape(-1, 1)}, do_compression=True)
    return file.getvalue()


def devkit(truth=TRUTH, data=None):
    top = "ILSVRC2012_devkit_t12"
    return gzip.compress(tar({
        f"{top}/readme.txt": b"read me", f"{top}/data/meta.mat": data or meta(),
        f"{top}/data/ILSVRC2012_validation_ground_truth.txt":
            "".join(f"{number}\n" for number in truth).encode()}), mtime=0)


def real(folder, files, copies=1):
    """Write archives of real pictures {wnid_name: bytes}, each so many times; val has each once."""
    wnids = sorted({name[:9] for name in files})
    train = {wnid: {f"{wnid}_{100 * i + j}.JPEG": files[name]
                    for i, name in enumerate(name for name in files if name[:9] == wnid)
                    for j in range(copies)} for wnid in wnids}
    val = {f"ILSVRC2012_val_{i:08d}.JPEG": files[name]
           for i, name in enumerate(sorted(files), 1)}
    counts = {wnid: len(pictures) for wnid, pictures in train.items()}
    synsets = [(wnid, f"thing {i}") for i, wnid in enumerate(wnids[::-1])]   # the kit's own order
    truth = [len(wnids) - wnids.index(name[:9]) for name in sorted(files)]
    return write(folder, train, val, devkit(truth, meta(synsets, counts)))


def write(folder, train=None, val=None, kit=None):
    """Write the three archives; return the folder as a string."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = train_pictures() if train is None else train
    if isinstance(pictures, dict):
        pictures = tar({f"{wnid}.tar": tar(files) for wnid, files in pictures.items()})
    val = val_pictures() if val is None else val
    (folder / TRAIN).write_bytes(pictures)
    (folder / VAL).write_bytes(tar(val) if isinstance(val, dict) else val)
    (folder / DEVKIT).write_bytes(devkit() if kit is None else kit)
    return str(folder)
