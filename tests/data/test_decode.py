# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, PngImagePlugin

from src.data import decode as module
from src.data.decode import UnreadableImage, decode, fault
from tests.helpers.image_files import SAVED, with_pillow
from tests.helpers.pictures import photo

# Pillow's warnings are silenced once a process, which pytest undoes after each test.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def test_every_kind_of_file_has_the_pixels_that_pillow_gives(path):
    pixels = decode(path)
    assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"] and pixels.flags["WRITEABLE"]
    np.testing.assert_array_equal(pixels, with_pillow(path))
    np.testing.assert_array_equal(decode(path.read_bytes()), pixels)
    np.testing.assert_array_equal(decode(str(path)), pixels)
    assert fault(path) is None


@pytest.mark.parametrize("kind", ["text", "compressed text", "profile"])
def test_a_png_with_much_beside_its_pixels_is_read(tmp_path, kind):
    rest, words = {}, PngImagePlugin.PngInfo()
    if kind == "profile":
        rest["icc_profile"] = np.random.default_rng(0).bytes(2 << 20)
    else:
        words.add_text("prompt", "word " * (400 << 10), zip=kind != "text")
    Image.fromarray(photo()).save(tmp_path / "x.png", pnginfo=words, **rest)
    np.testing.assert_array_equal(decode(tmp_path / "x.png"), photo())
    assert fault(tmp_path / "x.png") is None


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_grey_has_the_range_that_holds_it_and_that_is_said_once(tmp_path, bits, caplog, monkeypatch):
    monkeypatch.setattr(module, "_said", set())
    values = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(1, 256)
    for name in ("x.png", "y.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(decode(tmp_path / name)[0, :, 0], np.arange(256))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (bits < 16) and all("x.png" in line and f"{bits} bits" in line for line in said)


@pytest.mark.parametrize("kind", ["rgb.png", "rgba.png", "rgb.tif"])
def test_deep_colour_of_fewer_bits_is_said_once(tmp_path, kind, caplog, monkeypatch):
    """Old: such pictures were nearly black without a word."""
    monkeypatch.setattr(module, "_said", set())
    pixels = np.full((4, 4, 4), 65535, np.uint16)
    for name, top in (("whole", 65535), ("few", 4095), ("more", 4095)):
        pixels[..., :3] = top
        cv2.imwrite(str(tmp_path / f"{name}_{kind}"), pixels[..., : kind.index(".")])
        assert decode(tmp_path / f"{name}_{kind}").max() == top >> 8
    (said,) = caplog.records
    assert "few_" in said.getMessage() and "without a value above 4095" in said.getMessage()


@pytest.mark.parametrize("suffix", ["jp2", "jpe", "ico", "tga", "pcx", "ppm", "jfif", "avif", "dib", "sgi"])
def test_whatever_pillow_reads_is_read(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(photo(32, 32)).save(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(decode(path), np.asarray(image.convert("RGB")))
    assert fault(path) is None


def test_the_extension_does_not_matter(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(decode(tmp_path / "x.jpg"), photo())
    assert fault(tmp_path / "x.jpg") is None


@pytest.mark.parametrize("name", ["rgb.jpg", "grey.jpg", "turned_6.jpg", "progressive.jpg"])
def test_simplejpeg_decodes_common_jpegs_and_no_others(tmp_path, name, monkeypatch):
    calls, decode_jpeg = [], simplejpeg.decode_jpeg

    def counted(*arguments, **options):
        calls.append(1)
        return decode_jpeg(*arguments, **options)

    def refuse(*arguments, **options):
        raise ValueError("not this one")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    for saved in (name, "cmyk.jpg", "rgb.png"):
        SAVED[saved](tmp_path / saved)
        decode(tmp_path / saved)
    assert len(calls) == 1
    with (tmp_path / name).open("ab") as file:
        file.write(b"a camera's own data")
    decode(tmp_path / name)
    assert len(calls) == 2
    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)  # what it gives up is left to Pillow
    np.testing.assert_array_equal(decode(tmp_path / name), with_pillow(tmp_path / name))


@pytest.mark.parametrize(
    ("at", "value"),
    [(1, b"\xc9"), (4, b"\x0c"), (5, b"\0\0"), (2, b"\0\7"), (11, b"\0\0\0\0\0\0\0")],
    ids=["arithmetic coding", "12 bits", "no height", "a header that leads nowhere", "sampled 0 times"],
)
def test_odd_headers_are_left_to_pillow(tmp_path, monkeypatch, at, value):
    SAVED["rgb.jpg"](tmp_path / "x.jpg")
    data = bytearray((tmp_path / "x.jpg").read_bytes())
    at += data.index(b"\xff\xc0")
    data[at : at + len(value)] = value
    calls = []
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: calls.append(1))
    with contextlib.suppress(UnreadableImage):
        decode(bytes(data))
    assert not calls


class TestDamage:
    def reason(self, path, data):
        """What both say of such a file."""
        path.write_bytes(data)
        with pytest.raises(UnreadableImage) as caught:
            decode(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "replace or remove" in message and "\n" not in message
        assert fault(path) == caught.value.reason
        return caught.value.reason

    def test_a_missing_file(self, tmp_path):
        assert "No such file" in fault(tmp_path / "x.jpg")
        with pytest.raises(UnreadableImage, match="No such file"):
            decode(tmp_path / "x.jpg")

    def test_an_empty_file(self, tmp_path):
        assert "empty" in self.reason(tmp_path / "x.jpg", b"")
        with pytest.raises(UnreadableImage, match="an image in memory: the file is empty"):
            decode(b"")

    @pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp"])
    def test_text_with_the_name_of_an_image(self, tmp_path, name):
        assert "not an image" in self.reason(tmp_path / name, b"<html>not found</html>")

    @pytest.mark.parametrize(
        "name", ["rgb.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "rgb.png", "la.png"]
    )
    @pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
    def test_a_truncated_file(self, tmp_path, name, share):
        SAVED[name](tmp_path / name)
        data = (tmp_path / name).read_bytes()
        self.reason(tmp_path / name, data[: int(share * len(data))])

    @pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png"])
    def test_a_download_that_was_filled_up_with_zeros(self, tmp_path, name):
        SAVED[name](tmp_path / name)
        data = (tmp_path / name).read_bytes()
        self.reason(tmp_path / name, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))

    @pytest.mark.parametrize("cut", [1, 2])
    def test_a_jpeg_without_its_end_marker(self, tmp_path, cut):
        SAVED["rgb.jpg"](tmp_path / "x.jpg")
        self.reason(tmp_path / "x.jpg", (tmp_path / "x.jpg").read_bytes()[:-cut])

    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_thumbnail_does_not_pass_for_the_image(self, tmp_path, progressive):
        """Its end marker lies before the image's own data."""
        thumbnail = io.BytesIO()
        Image.fromarray(photo(16, 16)).save(thumbnail, "JPEG")
        path = tmp_path / "x.jpg"
        Image.fromarray(photo(200, 200)).save(path, comment=thumbnail.getvalue(), progressive=progressive)
        np.testing.assert_array_equal(decode(path), with_pillow(path))
        data = path.read_bytes()
        self.reason(path, data[: len(data) // 2])
        self.reason(path, data[: len(data) // 2] + bytes(4 * len(data)))  # OpenCV makes up pixels from zeros
        self.reason(path, data[: data.index(b"\xff\xd9") + 2])

    def test_a_header_of_no_pixels(self, tmp_path):
        SAVED["rgb.png"](tmp_path / "x.png")
        data = bytearray((tmp_path / "x.png").read_bytes())
        data[16:20] = bytes(4)  # the width
        self.reason(tmp_path / "x.png", data)

    @pytest.mark.parametrize("name", ["rgb.jpg", "grey.jpg", "rgb.png", "two.mpo"])
    @pytest.mark.parametrize(
        "rest", [b"\0", bytes(9), b"\r\n", bytes(9000), b"a comment after the image" * 9]
    )
    def test_bytes_after_the_end_do_no_harm(self, tmp_path, name, rest):
        SAVED[name](tmp_path / name)
        expected = with_pillow(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + rest)
        assert fault(tmp_path / name) is None
        np.testing.assert_array_equal(decode(tmp_path / name), expected)

    def test_damaged_pixels_are_found_when_they_are_decoded(self, tmp_path):
        SAVED["rgb.png"](tmp_path / "x.png")
        data = bytearray((tmp_path / "x.png").read_bytes())
        middle = len(data) // 2
        data[middle : middle + 40] = bytes(40)
        (tmp_path / "x.png").write_bytes(data)
        assert fault(tmp_path / "x.png") is None
        with pytest.raises(UnreadableImage, match="cannot be decoded"):
            decode(tmp_path / "x.png")


def test_threads_decode_alike_and_leave_the_warnings_alone(tmp_path):
    names = ["rgb.jpg", "rgba.png", "16_bits.png", "palette_and_alpha.png", "damaged_exif.jpg"]
    for name in names:
        SAVED[name](tmp_path / name)
    expected = {name: with_pillow(tmp_path / name) for name in names}
    decode(tmp_path / "rgb.jpg")
    filters = list(warnings.filters)

    def check(k):
        name = names[k % len(names)]
        return np.array_equal(decode(tmp_path / name), expected[name])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(200)))
    assert warnings.filters == filters


def test_pillows_warnings_are_not_shown(tmp_path):
    """In a process of its own, since pytest has filters of its own."""
    SAVED["damaged_exif.jpg"](tmp_path / "x.jpg")
    code = (
        "import sys, PIL.Image; PIL.Image.MAX_IMAGE_PIXELS = 2000\n"
        "from src.data.decode import decode, fault\n"
        "print(fault(sys.argv[1]), decode(sys.argv[1]).shape)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path / "x.jpg")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None (47, 61, 3)\n", "")
