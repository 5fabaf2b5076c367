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
from PIL import Image, ImageOps

from src.data import decode as module
from src.data.decode import UnreadableImage, decode, decode_crop, fault
from tests.helpers.pictures import photo

# Pillow's warnings are silenced once a process, which pytest undoes after each test.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def with_pillow(path):
    """The oracle: Pillow alone, step by step."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            return np.repeat((np.asarray(image) / 65535 * 255).round().astype(np.uint8)[..., None], 3, axis=2)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            white.alpha_composite(image)
            image = white
        return np.asarray(image.convert("RGB"))


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def palette_image():
    return Image.fromarray(photo()).quantize(16)


SAVED = {
    "rgb.jpg": lambda path: Image.fromarray(photo()).save(path, quality=90),
    "444.jpg": lambda path: Image.fromarray(photo()).save(path, subsampling=0),
    "422.jpg": lambda path: Image.fromarray(photo()).save(path, subsampling=1),
    "progressive.jpg": lambda path: Image.fromarray(photo()).save(path, progressive=True),
    "coarse.jpg": lambda path: Image.fromarray(photo()).save(path, quality=10),
    "keep_rgb.jpg": lambda path: Image.fromarray(photo()).save(path, keep_rgb=True),
    "grey.jpg": lambda path: Image.fromarray(photo()).convert("L").save(path),
    "cmyk.jpg": lambda path: Image.fromarray(photo()).convert("CMYK").save(path),
    "profile.jpg": lambda path: Image.fromarray(photo()).save(path, icc_profile=bytes(500)),
    "one.jpg": lambda path: Image.fromarray(photo(1, 1)).save(path),
    "two.mpo": lambda path: Image.fromarray(photo()).save(
        path, save_all=True, append_images=[Image.fromarray(photo(seed=1))]
    ),
    "rgb.png": lambda path: Image.fromarray(photo()).save(path),
    "grey.png": lambda path: Image.fromarray(photo()).convert("L").save(path),
    "one_bit.png": lambda path: Image.fromarray(photo()).convert("1").save(path),
    "palette.png": lambda path: palette_image().save(path),
    "palette_and_transparency.png": lambda path: palette_image().save(path, transparency=3),
    "palette_and_alpha.png": lambda path: palette_image().save(path, transparency=bytes(range(0, 256, 16))),
    "transparent_colour.png": lambda path: Image.fromarray(photo()).save(
        path, transparency=tuple(photo()[5, 5].tolist())
    ),
    "rgba.png": lambda path: Image.fromarray(np.dstack([photo(), photo(seed=1)[..., 0]])).save(path),
    "la.png": lambda path: Image.fromarray(photo()[..., :2]).save(path),
    "16_bits.png": lambda path: Image.fromarray(photo()[..., 0].astype(np.uint16) * 250).save(path),
    "turned.png": lambda path: Image.fromarray(photo()).save(path, exif=orientation(6)),
    "palette.gif": lambda path: palette_image().save(path),
    "rgb.bmp": lambda path: Image.fromarray(photo()).save(path),
    "rgb.webp": lambda path: Image.fromarray(photo()).save(path),
    "cmyk.tiff": lambda path: Image.fromarray(photo()).convert("CMYK").save(path),
    **{
        f"turned_{value}.jpg": lambda path, value=value: Image.fromarray(photo()).save(
            path, exif=orientation(value)
        )
        for value in (1, 2, 3, 4, 5, 6, 7, 8, 9)
    },
    "grey_turned.jpg": lambda path: Image.fromarray(photo()).convert("L").save(path, exif=orientation(8)),
    "cmyk_turned.jpg": lambda path: Image.fromarray(photo()).convert("CMYK").save(path, exif=orientation(8)),
    "damaged_exif.jpg": lambda path: Image.fromarray(photo()).save(
        path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"
    ),
}


@pytest.fixture(params=SAVED)
def path(tmp_path, request):
    path = tmp_path / request.param
    SAVED[request.param](path)
    return path


def test_every_kind_of_file_has_the_pixels_that_pillow_gives(path):
    pixels = decode(path)
    assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"] and pixels.flags["WRITEABLE"]
    np.testing.assert_array_equal(pixels, with_pillow(path))
    np.testing.assert_array_equal(decode(path.read_bytes()), pixels)
    np.testing.assert_array_equal(decode(str(path)), pixels)
    assert fault(path) is None


def reduced(pixels, factor):
    """The mean of each square of pixels."""
    height, width = (side // factor * factor for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return blocks.mean((1, 3))


def test_a_box_of_every_kind_of_file_has_the_pixels_of_the_whole(path):
    """What is decoded ends at every row, and so within, at and after the last rows of blocks."""
    whole, sizes = with_pillow(path), []

    def choose(height, width):
        sizes.append((height, width))
        return top, width // 3, bottom - top, width - width // 3

    for top, bottom in ((k // 3, k) for k in range(1, len(whole) + 1)):
        crop = decode_crop(path, choose, 100)
        assert crop.dtype == np.uint8
        np.testing.assert_array_equal(crop, whole[top:bottom, whole.shape[1] // 3 :])
    assert set(sizes) == {whole.shape[:2]}


class TestCrop:
    SHAPE = (500, 600)

    def saved(self, path, **options):
        smooth = photo(150, 125)
        Image.fromarray(cv2.resize(smooth, self.SHAPE[::-1], interpolation=cv2.INTER_CUBIC)).save(
            path, quality=95, **options
        )
        return path

    def shapes_decoded(self, monkeypatch):
        """Collects the shape of all that is decoded."""
        shapes, decode_jpeg = [], simplejpeg.decode_jpeg

        def spy(*arguments, **options):
            pixels = decode_jpeg(*arguments, **options)
            shapes.append(pixels.shape[:2])
            return pixels

        monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
        return shapes

    @pytest.mark.parametrize(
        ("options", "rows"),
        [
            ({}, 320),
            ({"subsampling": 0}, 312),
            ({"restart_marker_rows": 1}, 320),
            ({"progressive": True}, 500),
        ],
        ids=["4:2:0", "4:4:4", "restart markers", "progressive"],
    )
    def test_rows_below_the_box_are_not_decoded(self, tmp_path, monkeypatch, capfd, options, rows):
        path = self.saved(tmp_path / "x.jpg", **options)
        shapes = self.shapes_decoded(monkeypatch)
        crop = decode_crop(path, lambda *_: (100, 50, 200, 300), 224)
        assert shapes == [(rows, 600)] and crop.shape == (200, 300, 3)
        np.testing.assert_array_equal(crop, with_pillow(path)[100:300, 50:350])
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("least", "factor"),
        [(301, 1), (300, 1), (151, 1), (150, 2), (76, 2), (75, 4), (38, 4), (37, 8), (1, 8)],
    )
    def test_a_large_box_is_reduced_to_its_mean(self, tmp_path, least, factor):
        path = self.saved(tmp_path / "x.jpg")
        crop = decode_crop(path, lambda *_: (96, 40, 300, 400), least)
        expected = reduced(with_pillow(path)[96:396, 40:440], factor)
        assert min(crop.shape[:2]) >= least or factor == 1
        assert crop.shape[0] in (expected.shape[0], expected.shape[0] + 1)
        off = np.abs(crop[: expected.shape[0]] - expected)
        assert off.mean() < 1.5 and off.max() < 40

    def test_edges_of_a_reduced_box_are_rounded_and_the_border_is_kept(self, tmp_path):
        path = self.saved(tmp_path / "x.jpg")
        shapes = {
            (top, height): decode_crop(path, lambda *_: (top, 1, height, 599), 125).shape  # noqa: B023
            for top, height in ((0, 500), (1, 499), (3, 251), (2, 250), (1, 250))
        }
        assert shapes == {
            (0, 500): (125, 150, 3), (1, 499): (249, 299, 3), (3, 251): (125, 299, 3),
            (2, 250): (125, 299, 3), (1, 250): (125, 299, 3),
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["cut.jpg", "empty.jpg", "text.jpg"])
    def test_a_damaged_file_is_named(self, tmp_path, name):
        data = self.saved(tmp_path / "x.jpg").read_bytes()
        path = tmp_path / name
        path.write_bytes({"cut.jpg": data[:-9000], "empty.jpg": b"", "text.jpg": b"<html>"}[name])
        with pytest.raises(UnreadableImage, match=name) as crop:
            decode_crop(path, lambda *_: (0, 0, 9, 9), 4)
        with pytest.raises(UnreadableImage) as whole:
            decode(path)
        assert str(crop.value) == str(whole.value)

    def test_damage_below_the_box_changes_nothing(self, tmp_path, capfd):
        path = self.saved(tmp_path / "x.jpg")
        expected, data = with_pillow(path), bytearray(path.read_bytes())
        data[-9000:-8000] = bytes(1000)
        crop = decode_crop(bytes(data), lambda *_: (0, 0, 100, 600), 100)
        np.testing.assert_array_equal(crop, expected[:100])
        assert decode(bytes(data)).shape == (500, 600, 3) and capfd.readouterr() == ("", "")


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
    [(1, b"\xc9"), (4, b"\x0c"), (5, b"\0\0"), (2, b"\0\7")],
    ids=["arithmetic coding", "12 bits", "no height", "a header that leads nowhere"],
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

    def test_a_bomb_is_refused_by_both(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        monkeypatch.setattr(module, "_MANY_PIXELS", 2000)
        for name in ("rgb.jpg", "rgb.png"):
            SAVED[name](tmp_path / name)
            assert "bomb" in self.reason(tmp_path / name, (tmp_path / name).read_bytes())


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
