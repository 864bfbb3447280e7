"""Decoding: every kind of JPEG and PNG, and everything that only claims to be one."""
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tinyalex.data import (BrokenPicture, decode_picture, fit, picture_size, read_picture,
                           resize_shorter)
from tinyalex.data.pictures import MAX_BYTES, MAX_PIXELS


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(height=20, width=30):
    """A smooth picture that JPEG keeps within a few levels."""
    y, x = np.mgrid[:height, :width]
    return np.stack([8 * x, 12 * y, 255 - 4 * (x + y)], 2).clip(0, 255).astype(np.uint8)


def png(width, height, depth, color, rows, extra=b""):
    """A PNG by hand, for what Pillow does not write."""
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def test_rgb_png_is_exact_and_jpeg_is_close():
    picture = scene()
    exact = decode_picture(encoded(Image.fromarray(picture)))
    assert exact.dtype == np.uint8 and np.array_equal(exact, picture)
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        close = decode_picture(encoded(Image.fromarray(picture), "JPEG", quality=95, **options))
        assert np.abs(close.astype(int) - picture).mean() < 4


def test_grey_of_8_and_1_bit():
    grey = Image.fromarray(scene()).convert("L")
    for kind in ("PNG", "JPEG"):
        found = decode_picture(encoded(grey, kind))
        assert found.shape == (20, 30, 3) and np.ptp(found.astype(int), axis=2).max() == 0
    found = decode_picture(encoded(grey.convert("1")))
    assert set(np.unique(found)) == {0, 255}


def test_grey_of_16_bits_keeps_its_high_byte():
    grey = (np.arange(600).reshape(20, 30) * 109).astype(np.uint16)
    found = decode_picture(encoded(Image.fromarray(grey)))
    assert np.array_equal(found, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2))


def test_rgb_of_16_bits():
    row = b"\0" + struct.pack(">6H", 0x1234, 0x8000, 0xFFFF, 0, 0x00FF, 0x0100)
    found = decode_picture(png(2, 1, 16, 2, row))
    assert np.abs(found.astype(int) - [[[0x12, 0x80, 0xFF], [0, 0, 1]]]).max() <= 1


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 30, 40, 250])
    image.putpixel((1, 0), 1)
    assert decode_picture(encoded(image)).tolist() == [[[200, 10, 20], [30, 40, 250]]]
    found = decode_picture(encoded(image, transparency=0))
    assert found.tolist() == [[[255, 255, 255], [30, 40, 250]]]
    half = decode_picture(encoded(image, transparency=bytes([255, 128])))
    assert half[0, 0].tolist() == [200, 10, 20]
    assert half[0, 1].tolist() == pytest.approx([142, 147, 252], abs=1)


def test_alpha_lies_over_white():
    image = Image.new("RGBA", (3, 1), (0, 100, 200, 255))
    image.putpixel((1, 0), (0, 100, 200, 0))
    image.putpixel((2, 0), (0, 100, 200, 51))
    found = decode_picture(encoded(image))
    assert found[0, :2].tolist() == [[0, 100, 200], [255, 255, 255]]
    assert found[0, 2].tolist() == pytest.approx([204, 224, 244], abs=1)
    grey = decode_picture(encoded(Image.new("LA", (1, 1), (0, 0))))
    assert grey.tolist() == [[[255, 255, 255]]]


def test_one_color_declared_transparent():
    rgb = Image.new("RGB", (2, 1), (9, 9, 9))
    rgb.putpixel((1, 0), (5, 6, 7))
    assert decode_picture(encoded(rgb, transparency=(9, 9, 9))).tolist() == [
        [[255, 255, 255], [5, 6, 7]]]
    grey = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0x0A00, 0x0B00),
               struct.pack(">I", 2) + b"tRNS\x0a\0" + struct.pack(">I", zlib.crc32(b"tRNS\x0a\0")))
    assert decode_picture(grey)[0, :, 0].tolist() == [255, 0x0B]


def test_cmyk_jpeg():
    found = decode_picture(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert found.shape == (16, 16, 3)
    assert found[8, 8].tolist() == pytest.approx([255, 0, 0], abs=6)


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6                                    # a viewer would turn it by a quarter
    data = encoded(Image.fromarray(scene(20, 30)), "JPEG", exif=exif)
    assert decode_picture(data).shape == (20, 30, 3)


def test_only_the_first_frame_counts():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    assert decode_picture(data)[0, 0].tolist() == [255, 0, 0]


def test_content_decides_not_the_name(tmp_path):
    path = tmp_path / "n02105855_2933.JPEG"             # ImageNet's PNG of that name
    path.write_bytes(encoded(Image.fromarray(scene())))
    assert np.array_equal(read_picture(path), scene())
    assert picture_size(path) == (20, 30)


@pytest.mark.parametrize("data, reason", [
    (b"", "is empty (0 bytes)"),
    (b"hello, this is no picture", "is neither a JPEG nor a PNG"),
    (encoded(Image.fromarray(scene()), "GIF"), "is neither a JPEG nor a PNG"),
    (encoded(Image.fromarray(scene()), "BMP"), "is neither a JPEG nor a PNG"),
    (encoded(Image.fromarray(scene()), "TIFF"), "is neither a JPEG nor a PNG"),
    (encoded(Image.fromarray(scene()), "JPEG")[:-40], "is damaged: "),
    (encoded(Image.fromarray(scene()))[:-40], "is damaged: "),
    (encoded(Image.fromarray(scene()))[:30], "is damaged: "),
])
def test_what_is_broken_says_so_in_one_line(tmp_path, data, reason):
    path = tmp_path / "dog.jpg"
    path.write_bytes(data)
    with pytest.raises(BrokenPicture) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {reason}") and "\n" not in message
    assert "0x" not in message                          # no address of an object of Pillow's
    assert isinstance(caught.value, ValueError) and caught.value.__cause__ is None


@pytest.mark.parametrize("side", [7_100, 12_000, 20_000])
def test_a_bomb_is_stopped_at_its_header(side):
    # 7,100 is within Pillow's limits, 12,000 is where it only warns, 20,000 where it raises.
    data = png(side, side, 8, 2, b"")
    assert side * side > MAX_PIXELS and len(data) < 200
    with pytest.raises(BrokenPicture, match="over the limit of 50 million pixels"):
        decode_picture(data, "bomb.png")


def test_the_limit_itself_is_allowed():
    with pytest.raises(BrokenPicture, match="is damaged"):          # opened, then found empty
        decode_picture(png(10_000, 5_000, 1, 0, b""), "large.png")


def test_large_files_pipes_and_folders_are_refused(tmp_path):
    large = tmp_path / "large.jpg"
    for size in (MAX_BYTES + 1, 2**40):                 # no memory holds the second one
        with open(large, "wb") as file:
            file.truncate(size)                         # a hole: takes no room
        with pytest.raises(BrokenPicture, match="over the limit of 100 MB"):
            read_picture(large)
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/zero"):
        with pytest.raises(BrokenPicture) as caught:
            read_picture(path)
        assert str(caught.value) == f"{path}: is not a regular file"
    with pytest.raises(BrokenPicture, match="missing.jpg: No such file"):
        read_picture(tmp_path / "missing.jpg")
    with pytest.raises(BrokenPicture, match="null"):
        read_picture("a\0b.jpg")


def test_names_that_are_no_text_can_still_be_printed(tmp_path):
    path = os.fsencode(tmp_path) + b"/two\nlines\xff.jpg"
    with open(path, "wb"):
        pass
    with pytest.raises(BrokenPicture) as caught:
        read_picture(os.fsdecode(path))
    assert len(str(caught.value).encode().splitlines()) == 1


@pytest.mark.parametrize("kind, options", [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"mode": "CMYK"}),
    ("PNG", {"mode": "P"}), ("PNG", {"mode": "RGBA"}), ("PNG", {"mode": "I;16"})])
def test_fuzzed_bytes_give_a_picture_or_brokenpicture(kind, options):
    mode = options.pop("mode", "RGB") if "mode" in (options := dict(options)) else "RGB"
    if mode == "I;16":
        image = Image.fromarray(scene()[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(scene()).convert(mode)
    data = encoded(image, kind, **options)
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(150):
        bytes_ = np.frombuffer(data, np.uint8).copy()
        # Mostly near the front, where the headers are; sometimes cut, sometimes spliced.
        places = (rng.random(rng.integers(1, 9)) ** 2 * len(data)).astype(int)
        bytes_[places] = rng.integers(0, 256, len(places))
        if rng.random() < 0.3:
            bytes_ = bytes_[:rng.integers(len(data))]
        if rng.random() < 0.2:
            bytes_ = np.concatenate([bytes_, bytes_[rng.integers(len(bytes_) + 1):]])
        try:
            picture = decode_picture(bytes_.tobytes(), "fuzz")
        except BrokenPicture as problem:
            broken += 1
            assert str(problem).startswith("fuzz: ") and "\n" not in str(problem)
        else:
            assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert broken > 20


def test_resize_shorter_keeps_proportions():
    assert resize_shorter(scene(20, 30), 40).shape == (40, 60, 3)
    assert resize_shorter(scene(30, 20), 10).shape == (15, 10, 3)
    same = scene()
    assert resize_shorter(same, 20) is same
    with pytest.raises(ValueError, match="at most 50,000,000 pixels"):
        resize_shorter(np.zeros((1, 3000, 3), np.uint8), 256)


def test_resizing_does_not_alias():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200                                  # the finest grating there is
    small = fit(stripes, 20)
    assert small.shape == (20, 20, 3) and np.abs(small.astype(int) - 100).max() < 15


def test_fit_is_the_central_square():
    for picture in (scene(20, 40), scene(40, 20)):
        whole = resize_shorter(picture, 10)             # (10, 20, 3) or (20, 10, 3)
        middle = whole[:, 5:15] if whole.shape[1] == 20 else whole[5:15]
        assert np.array_equal(fit(picture, 10), middle)
    assert fit(np.zeros((1, 100_000, 3), np.uint8), 256).shape == (256, 256, 3)
    square = scene(12, 12)
    assert fit(square, 12) is square


@pytest.mark.parametrize("picture, size", [
    (np.zeros((4, 4, 3), np.float32), 2), (np.zeros((4, 4), np.uint8), 2),
    (np.zeros((0, 4, 3), np.uint8), 2), (np.zeros((4, 4, 3), np.uint8), 0)])
def test_resizing_refuses_what_is_no_picture(picture, size):
    for function in (fit, resize_shorter):
        with pytest.raises(ValueError, match="expected"):
            function(picture, size)


def test_large_jpegs_are_decoded_small_with_much_the_same_result():
    picture = np.asarray(Image.fromarray(scene()).resize((1200, 800)))
    data = encoded(Image.fromarray(picture), "JPEG", quality=95)
    quick, slow = decode_picture(data, resize=64), fit(decode_picture(data), 64)
    assert quick.shape == slow.shape == (64, 64, 3)
    assert np.abs(quick.astype(int) - slow).mean() < 2
