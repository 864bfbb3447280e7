"""Bad pictures by the hundred: each is decoded to the right colors or named, in bounded time and
memory. What may hang or eat the machine is decoded in a process of its own, with limits."""
import functools
import json
import pathlib
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from test_data_pictures import encoded, scene

from tinyalex.data import Augment, BrokenPicture, FileDataset, Loader, decode_picture
from tinyalex.data.pictures import MAX_PIXELS, MAX_SCANS

HERE = pathlib.Path(__file__).parent
PICTURE = scene()                                       # (20, 30, 3)
GREY = PICTURE[..., 1]
ALPHA = np.broadcast_to(np.linspace(0, 255, 30).astype(np.uint8), (20, 30))
SECONDS, MEGABYTES = 20, 1000                           # for one picture; the worst needs 5 and 900
SIDE = int(MAX_PIXELS**0.5)                             # of the largest square that is allowed
MAGIC, END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xae\x42\x60\x82"


# ---------------------------------------------------------------------------- files by hand

def chunk(kind, data=b""):
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data)))


def header(width, height, depth=8, color=2, interlaced=0):
    return MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0,
                                              interlaced))


def zeros(count):
    """Compressed zeros, as many as one likes, made in little memory."""
    made = zlib.compressobj(1)
    parts = [made.compress(bytes(min(2**20, count - i))) for i in range(0, count, 2**20)]
    return b"".join(parts) + made.flush()


def interlaced(picture):
    """A PNG in Adam7's seven passes, which Pillow reads but does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))
    lines = [b"\0" + row.tobytes() for y, x, down, right in passes
             for row in picture[y::down, x::right]]
    height, width = picture.shape[:2]
    return (header(width, height, interlaced=1)
            + chunk(b"IDAT", zlib.compress(b"".join(lines))) + END)


def four_channels(stored, transform):
    """A JPEG whose four channels hold `stored`; 0 in Adobe's marker says CMYK, 2 says YCCK."""
    turned = (255 - stored).tobytes()                   # as Pillow does again when it writes them
    data = encoded(Image.frombytes("CMYK", stored.shape[1::-1], turned), "JPEG", quality=100,
                   subsampling=0)
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    return data[:place] + bytes([transform]) + data[place + 1:]


def with_black(colors):
    return np.dstack([colors, np.full(colors.shape[:2], 200, np.uint8)])


def over_white(colors):
    share = ALPHA[..., None] / 255
    return colors * share + 255 * (1 - share)


@functools.cache
def good():
    """Return {name: (bytes, the right RGB, by how much it may be off)} of pictures of any kind."""
    rgb, grey = Image.fromarray(PICTURE), Image.fromarray(GREY)
    grey3 = np.repeat(GREY[..., None], 3, 2)
    ycc = np.asarray(Image.fromarray(255 - PICTURE).convert("YCbCr"))
    palette = rgb.quantize(17)
    seen = palette.convert("RGB")
    holes = np.asarray(palette) == 3
    with_holes = np.where(holes[..., None], 255, np.asarray(seen))
    bits = grey.convert("1")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    truncated = encoded(rgb, "JPEG", exif=exif.tobytes()[:-9], quality=95)
    frames = [Image.fromarray(np.roll(PICTURE, i, 0)) for i in range(5)]
    sixteen = Image.fromarray(GREY.astype(np.uint16) * 256 + 77)
    return {
        "plain.png": (encoded(rgb), PICTURE, 0),
        "plain.jpg": (encoded(rgb, "JPEG", quality=95), PICTURE, 4),
        "progressive.jpg": (encoded(rgb, "JPEG", quality=95, progressive=True), PICTURE, 4),
        "grey.png": (encoded(grey), grey3, 0),
        "grey.jpg": (encoded(grey, "JPEG", quality=95), grey3, 2),
        "grey-alpha.png": (encoded(Image.merge("LA", [grey, Image.fromarray(ALPHA)])),
                           over_white(grey3), 1),
        "alpha.png": (encoded(Image.fromarray(np.dstack([PICTURE, ALPHA]))),
                      over_white(PICTURE), 1),
        "cmyk.jpg": (four_channels(with_black(PICTURE), 0), PICTURE * (200 / 255), 3),
        "ycck.jpg": (four_channels(with_black(ycc), 2), PICTURE * (200 / 255), 3),
        "16-bit.png": (encoded(sixteen), grey3, 0),
        "palette.png": (encoded(palette), np.asarray(seen), 0),
        "palette-hole.png": (encoded(palette, transparency=3), with_holes, 0),
        "1-bit.png": (encoded(bits), np.repeat(np.asarray(bits)[..., None] * 255, 3, 2), 0),
        "interlaced.png": (interlaced(PICTURE), PICTURE, 0),
        "animated.png": (encoded(frames[0], save_all=True, append_images=frames[1:]), PICTURE, 0),
        "a-png.JPEG": (encoded(rgb), PICTURE, 0),
        "exif-cut.jpg": (truncated, PICTURE, 4),
    }


# ---------------------------------------------------------------------------- and files to harm

@functools.cache
def bombs():
    """Return {name: (bytes, is it decoded)} of files that are made to hang or to fill.

    None where the libraries inside Pillow decide: what a version of theirs makes of half a file.
    """
    dot, end = header(1, 1, 8, 0), chunk(b"IDAT", zeros(2)) + END
    jpeg = encoded(Image.fromarray(PICTURE), "JPEG")
    progressive = encoded(Image.new("RGB", (SIDE, SIDE), "green"), "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda"):-2]
    frame = jpeg.index(b"\xff\xc0") + 5                 # its height and its width

    def sized(height, width):
        return jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4:]

    def full(depth, color, bits, extra=b""):            # as large as it may be, and all there
        return header(SIDE, SIDE, depth, color) + extra + chunk(
            b"IDAT", zeros(SIDE * (1 + SIDE * bits // 8))) + END

    icc = b"".join(b"\xff\xe2" + struct.pack(">H", 65016) + b"ICC_PROFILE\0" + bytes([i, 255])
                   + bytes(65000) for i in range(1, 256))
    frames = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0))
    return {
        "largest.png": (full(8, 2, 24), True),
        "largest-alpha.png": (full(16, 6, 64), True),
        "largest-16-bit.png": (full(16, 0, 16, chunk(b"tRNS", b"\0\0")), True),
        "largest.jpg": (progressive, True),
        "scans-allowed.jpg": (progressive[:-2] + last * (MAX_SCANS - 10) + b"\xff\xd9", True),
        "scans.jpg": (progressive[:-2] + last * 100_000 + b"\xff\xd9", False),
        "scans-small.jpg": (
            jpeg[:-2] + jpeg[jpeg.index(b"\xff\xda"):-2] * 1000 + b"\xff\xd9", None),
        "claims-all.png": (header(2**31 - 1, 2**31 - 1) + end, False),
        "claims-much.png": (header(20_000, 20_000) + end, False),
        "too-large.png": (header(8_000, 8_000) + chunk(
            b"IDAT", zeros(8_000 * (1 + 3 * 8_000))) + END, False),
        "claims-allowed.png": (header(10_000, 5_000) + end, False),
        "claims-wide.png": (header(MAX_PIXELS, 1) + end, False),
        "claims.jpg": (sized(65_500, 65_500), False),
        "claims-allowed.jpg": (sized(7_000, 7_000), None),
        "no-height.jpg": (sized(0, 30), False),
        "pixels.png": (dot + chunk(b"IDAT", zeros(500_000_000)) + END, True),
        "profile.png": (dot + chunk(b"iCCP", b"x\0\0" + zeros(200_000_000)) + end, False),
        "profiles.png": (dot + chunk(b"iCCP", b"x\0\0" + zeros(10**6)) * 2000 + end, True),
        "profile.jpg": (jpeg[:2] + icc + jpeg[2:], True),
        "text.png": (dot + chunk(b"zTXt", b"x\0\0" + zeros(200_000_000)) + end, False),
        "texts.png": (dot + chunk(b"zTXt", b"x\0\0" + zeros(10**6)) * 200 + end, False),
        "text-utf8.png": (dot + chunk(b"iTXt", b"x\0\1\0\0\0" + zeros(200_000_000)) + end, False),
        "chunks.png": (dot + chunk(b"abCd") * 300_000 + end, True),
        "chunks-behind.png": (dot + end[:-12] + chunk(b"IDAT") * 300_000 + END, True),
        "markers.jpg": (jpeg[:2] + b"\xff\xfe\0\2" * 300_000 + jpeg[2:], True),
        "frames.png": (dot + frames + control + end, True),
        "frames-none.png": (dot + frames + chunk(b"fdAT", b"\0\0\0\1") * 1000 + end, None),
        "frame-outside.png": (dot + frames + chunk(b"fcTL", struct.pack(
            ">IIIIIHHBB", 0, 2**30, 2**30, 7, 7, 1, 1, 0, 0)) + end, False),
        "zeros.png": (bytes(100_000), False),
        "zeros-behind.png": (header(30, 20) + bytes(100_000), False),
        "zeros-behind.jpg": (jpeg[:frame + 40] + bytes(100_000), None),
        "nothing.jpg": (b"", False),
    }


# ---------------------------------------------------------------------------- in another process

LIMITED = """
import json, os, resource, signal, sys, time
sys.path.insert(0, sys.argv[1])
import test_bad_pictures as here
from tinyalex.data import BrokenPicture, decode_picture

decode_picture(here.encoded(here.Image.fromarray(here.PICTURE)))       # Pillow is imported by this

def kilobytes(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

files = eval(sys.argv[2])
limit = 1024 * kilobytes("VmSize") + 2**20 * here.MEGABYTES
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name, data in files:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")                                 # the peak begins anew
    before, start = kilobytes("VmRSS"), time.perf_counter()
    signal.alarm(here.SECONDS)
    print(name, end=" ", file=sys.stderr)
    try:
        found = decode_picture(data, name, resize=256 if len(name) % 2 else None)
        outcome = list(found.shape)
        assert found.dtype == "uint8"
    except BrokenPicture as problem:
        outcome = str(problem)
    signal.alarm(0)
    print(json.dumps([name, outcome, time.perf_counter() - start,
                      (kilobytes("VmHWM") - before) / 1024, kilobytes("VmRSS") / 1024,
                      len(os.listdir("/proc/self/fd"))]))
"""


def decoded_apart(files):
    """Decode files in a process with limits.

    Returns (name, shape or message, seconds, peak in MB, MB held after it, open files) for each.

    Parameters
    ----------
    files : str
        An expression, in which this module is `here`, that gives pairs of names and bytes.
    """
    done = subprocess.run([sys.executable, "-W", "always", "-c", LIMITED, HERE, files], text=True,
                          capture_output=True, timeout=600)
    *_, last = done.stderr.split() or [""]
    assert done.returncode != -signal.SIGALRM, f"{last} took more than {SECONDS} s"
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


in_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and measures as Linux does")


# ---------------------------------------------------------------------------- the tests

@in_linux
def test_what_is_made_to_harm_is_decoded_or_named_within_its_limits(capsys):
    expected = {name: decoded for name, (_, decoded) in bombs().items()}
    found = decoded_apart("[(name, data) for name, (data, _) in here.bombs().items()]")
    slowest, largest = max(f[2] for f in found), max(f[3] for f in found)
    print(f"{len(found)} bombs: at most {slowest:.1f} s and {largest:.0f} MB")
    assert [name for name, *_ in found] == list(expected)
    for name, outcome, seconds, megabytes, *_ in found:
        assert expected[name] in (None, isinstance(outcome, list)), (name, outcome)
        assert seconds < SECONDS and megabytes < MEGABYTES
        assert isinstance(outcome, list) or outcome.startswith(f"{name}: ") and "\n" not in outcome
    reasons = {name: outcome for name, outcome, *_ in found}
    assert "too many scans for its size: 100,010" in reasons["scans.jpg"]
    for name in ("claims-all.png", "too-large.png", "claims.jpg"):
        assert "over the limit of 50 million pixels" in reasons[name]


@pytest.mark.parametrize("name", [name for name in good() if name != "exif-cut.jpg"])
def test_any_kind_is_decoded_to_the_right_colors(name):
    data, expected, off = good()[name]
    found = decode_picture(data, name)
    assert found.dtype == np.uint8 and found.shape == (20, 30, 3)
    assert np.abs(found - np.asarray(expected, float)).mean() <= off


@in_linux
def test_damaged_exif_data_is_no_damage_and_no_warning():
    (_, outcome, *_), = decoded_apart("[('exif-cut.jpg', here.good()['exif-cut.jpg'][0])]")
    assert outcome == [20, 30, 3]


def variants(seed, count):
    """Yield names and bytes of good pictures that were flipped, cut, extended and doubled.

    Every second PNG has right check sums again, so that the damage is not found by them.
    """
    sources = {name: data for name, (data, *_) in good().items()}
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = list(sources)[number % len(sources)]
        data = sources[name]
        if data.startswith(MAGIC) and number // len(sources) % 2:
            data = resealed(data, rng)
        else:
            data = damaged(data, rng)
        yield f"{number}-{name}", data


def damaged(data, rng):
    for _ in range(rng.integers(1, 4)):
        # Mostly near the front, where the headers are.
        place = int(rng.random() ** 2 * len(data))
        piece = data[place:place + int(rng.integers(1, 40))]
        how = rng.integers(4)
        if how == 0:
            bits = bytes(rng.integers(0, 256, int(rng.integers(1, 5)), np.uint8))
            data = data[:place] + bits + data[place + len(bits):]
        elif how == 1:
            data = data[:place] if rng.random() < 0.3 else data[:place] + data[place + len(piece):]
        elif how == 2:
            data = data[:place] + rng.bytes(len(piece)) + data[place:]
        else:
            data = data[:place] + piece * int(rng.integers(2, 50)) + data[place + len(piece):]
    return data


def resealed(data, rng):
    """Damage chunks of a PNG, but not their lengths and check sums."""
    parts, place = [], len(MAGIC)
    while place < len(data):
        length = int.from_bytes(data[place:place + 4], "big")
        parts.append((data[place + 4:place + 8], data[place + 8:place + 8 + length]))
        place += 12 + length
    i = int(rng.integers(len(parts)))
    kind, inner = parts[i]
    parts[i] = kind, damaged(inner, rng) if inner else rng.bytes(5)
    if rng.random() < 0.3:
        parts.insert(int(rng.integers(1, len(parts))), parts[int(rng.integers(len(parts)))])
    return MAGIC + b"".join(chunk(*part) for part in parts)


def fuzz(seed, count):
    found = decoded_apart(f"here.variants({seed}, {count})")
    broken = [outcome for _, outcome, *_ in found if isinstance(outcome, str)]
    print(f"{count} variants, {len(broken)} broken: at most {max(f[2] for f in found):.1f} s and "
          f"{max(f[3] for f in found):.0f} MB")
    assert len(found) == count and count // 4 < len(broken) < count
    for name, outcome, _, megabytes, *_ in found:
        assert megabytes < MEGABYTES
        assert not isinstance(outcome, str) or outcome.startswith(f"{name}: ")
        assert "\n" not in str(outcome)


@in_linux
def test_five_hundred_damaged_pictures():
    fuzz(0, 500)


@in_linux
@pytest.mark.slow
def test_five_thousand_damaged_pictures():
    fuzz(1, 5000)


def again_and_again(rounds):
    """Yield six kinds of pictures of 1.5 MB, five of them broken in a place of their own."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (700, 700, 4), np.uint8))
    png, jpeg = encoded(picture), encoded(picture.convert("RGB"), "JPEG", progressive=True)
    half = len(png) // 2
    files = {"whole.png": png, "cut.png": png[:half], "cut.jpg": jpeg[:len(jpeg) // 2],
             "sum.png": png[:half] + bytes([png[half] ^ 1]) + png[half + 1:],
             "header.png": png[:20], "huge.png": header(20_000, 20_000) + png[33:]}
    for _ in range(rounds):
        yield from files.items()


@in_linux
def test_broken_pictures_leak_neither_memory_nor_open_files():
    found = decoded_apart("here.again_and_again(40)")
    whole = [name for name, outcome, *_ in found if isinstance(outcome, list)]
    assert len(found) == 240 and whole == ["whole.png"] * 40
    held, open_files = zip(*(f[4:] for f in found[5::6]), strict=True)  # at the end of each round
    assert held[-1] - held[5] < 10 and len(set(open_files)) == 1, (held, open_files)


@pytest.mark.parametrize("workers", [0, 3])
def test_the_loader_goes_on_and_names_each(tmp_path, workers):
    small = {name for name, (data, decoded) in bombs().items()
             if decoded is False and len(data) < 10**5}
    pictures = {**{name: data for name, (data, _) in bombs().items() if name in small},
                **{name: data for name, (data, *_) in good().items() if name != "exif-cut.jpg"},
                "text.jpg": b"not a picture at all"}
    for name, data in pictures.items():
        (tmp_path / name).write_bytes(data)
    names = [*sorted(pictures), "missing.png"]
    dataset = FileDataset(str(tmp_path), names, np.arange(len(names)) % 2, ["a", "b"])
    loader = Loader(dataset, 7, Augment(16, np.full((1, 1, 3), 128)), workers=workers)
    batches = list(loader.batches(0))
    bad = {line.partition(": ")[0] for batch in batches for line in batch.skipped}
    assert bad == {f"{tmp_path}/{name}" for name in {*small, "text.jpg", "missing.png"}}
    assert loader.skipped == len(bad) == len(small) + 2 and len(small) >= 8
    assert sum(len(batch.labels) for batch in batches) == len(good()) - 1
