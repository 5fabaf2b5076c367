# SPDX-License-Identifier: Apache-2.0
"""What is decoded of a picture for what it is resized to."""

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from src.data import decode as module
from src.data.decode import UnreadableImage, admit, decode, decode_resized, fault
from src.data.preparation import Preparation
from src.data.resize import cut, resize, resize_box
from src.model_utils.config import check
from src.recipe import Recipe
from src.shared_config import SharedConfig
from tests.helpers.image_files import SAVED, orientation, with_pillow
from tests.helpers.pictures import photo

# Pillow's warnings are silenced once a process, which pytest undoes after each test.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def square_plan(size, crop="centre", **how):
    return Preparation(size, (0, 0, 0), (1, 1, 1), crop, **how).plan_square


def as_it_is(box):
    """A plan that cuts out a box and leaves its size."""
    return resize_box(box, *box[2:], "bilinear")


def test_a_box_of_every_kind_of_file_has_the_pixels_of_the_whole(path):
    """What is decoded ends at every row, and so within, at and after the last rows of blocks."""
    whole, sizes = with_pillow(path), []

    def plan(height, width):
        sizes.append((height, width))
        return as_it_is((top, width // 3, bottom - top, width - width // 3))

    for top, bottom in ((k // 3, k) for k in range(1, len(whole) + 1)):
        np.testing.assert_array_equal(decode_resized(path, plan), whole[top:bottom, whole.shape[1] // 3 :])
    assert set(sizes) == {whole.shape[:2]} and len(sizes) == len(whole)


class TestResized:
    SHAPE = (500, 600)

    def saved(self, path, shape=SHAPE, **options):
        smooth = photo(150, 125)
        Image.fromarray(cv2.resize(smooth, shape[::-1], interpolation=cv2.INTER_CUBIC)).save(
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
    def test_rows_below_the_part_are_not_decoded(self, tmp_path, monkeypatch, capfd, options, rows):
        path = self.saved(tmp_path / "x.jpg", **options)
        shapes = self.shapes_decoded(monkeypatch)
        crop = decode_resized(path, lambda *_: as_it_is((100, 50, 200, 300)))
        assert shapes == [(rows, 600)]
        np.testing.assert_array_equal(crop, with_pillow(path)[100:300, 50:350])
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
    @pytest.mark.parametrize(("size", "reduction"), [(84, 1), (83, 2), (42, 2), (41, 4), (21, 4), (20, 8)])
    def test_a_large_picture_is_decoded_at_a_fraction(self, tmp_path, monkeypatch, size, reduction, options):
        """Its sides are no multiples of 8: the last row and column are parts of pixels."""
        height, width = 501, 603
        path = self.saved(tmp_path / "x.jpg", (height, width), **options)
        shapes = self.shapes_decoded(monkeypatch)
        plan = square_plan(size, "squash")
        square = decode_resized(path, plan)
        assert shapes == [(-(-height // reduction), -(-width // reduction))]
        off = np.abs(square.astype(int) - plan(height, width)(with_pillow(path)))
        assert off.mean() < 0.5 and off.max() < 6

    @pytest.mark.parametrize(("width", "reduction"), [(600, 8), (601, 1)])
    def test_a_turned_picture_is_decoded_at_a_fraction_if_it_has_whole_pixels(
        self, tmp_path, monkeypatch, width, reduction
    ):
        path = self.saved(tmp_path / "x.jpg", (504, width), exif=orientation(6))
        shapes = self.shapes_decoded(monkeypatch)
        plan = square_plan(16, crop_percentage=0.8)
        square = decode_resized(path, plan)
        assert shapes == [(504 // reduction, width // reduction)]
        off = np.abs(square.astype(int) - plan(width, 504)(with_pillow(path)))
        assert off.mean() < 0.5

    def test_a_photograph_and_its_small_copy_look_alike(self, tmp_path):
        """Old behaviour: 2 of every 8 pixels were read, and the two were 10 grey levels apart."""
        large = np.array(Image.fromarray(photo(500, 375)).resize((2000, 1500), Image.Resampling.LANCZOS))
        grain = np.random.default_rng(0).integers(-60, 61, large.shape)
        large = (large + grain).clip(0, 255).astype(np.uint8)
        small = Image.fromarray(large).resize((500, 375), Image.Resampling.LANCZOS)
        for name, image in (("large", Image.fromarray(large)), ("small", small)):
            for suffix in ("jpg", "png"):
                image.save(tmp_path / f"{name}.{suffix}", **({"quality": 95} if suffix == "jpg" else {}))
        plan = square_plan(64, crop_percentage=0.875)
        seen = {path.name: decode_resized(path, plan).astype(int) for path in tmp_path.iterdir()}
        for first, second in (
            ("large.jpg", "small.jpg"),
            ("large.png", "small.png"),
            ("large.jpg", "small.png"),
        ):
            assert np.abs(seen[first] - seen[second]).mean() < 1
        plan = square_plan(64, crop_percentage=0.875, interpolation="tf_bilinear")
        aliased = decode_resized(tmp_path / "large.png", plan)
        assert np.abs(aliased - seen["small.png"]).mean() > 10

    def test_tf_bilinear_sees_the_whole(self, tmp_path):
        path = self.saved(tmp_path / "x.jpg")
        square = decode_resized(path, lambda *size: resize_box((0, 0, *size), 16, 16, "tf_bilinear"))
        np.testing.assert_array_equal(square, resize(with_pillow(path), 16, 16, "tf_bilinear"))

    @pytest.mark.parametrize("name", ["cut.jpg", "empty.jpg", "text.jpg"])
    def test_a_damaged_file_is_named(self, tmp_path, name):
        data = self.saved(tmp_path / "x.jpg").read_bytes()
        path = tmp_path / name
        path.write_bytes({"cut.jpg": data[:-9000], "empty.jpg": b"", "text.jpg": b"<html>"}[name])
        with pytest.raises(UnreadableImage, match=name) as crop:
            decode_resized(path, lambda *_: as_it_is((0, 0, 9, 9)))
        with pytest.raises(UnreadableImage) as whole:
            decode(path)
        assert str(crop.value) == str(whole.value)

    def test_damage_below_the_part_changes_nothing(self, tmp_path, capfd):
        path = self.saved(tmp_path / "x.jpg")
        expected, data = with_pillow(path), bytearray(path.read_bytes())
        data[-9000:-8000] = bytes(1000)
        crop = decode_resized(bytes(data), lambda *_: as_it_is((0, 0, 100, 600)))
        np.testing.assert_array_equal(crop, expected[:100])
        assert decode(bytes(data)).shape == (500, 600, 3) and capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("name", ["rgb.jpg", "cmyk.jpg", "rgb.png"])
    @pytest.mark.parametrize("error", [ValueError, KeyError, OSError])
    def test_a_fault_of_the_program_is_no_damage(self, tmp_path, name, error):
        SAVED[name](tmp_path / name)
        calls = []

        def plan(height, width):
            calls.append((height, width))
            raise error("a bug")

        with pytest.raises(error, match="a bug"):
            decode_resized(tmp_path / name, plan)
        assert len(calls) == 1


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
class TestLargePictures:
    @pytest.fixture(autouse=True)
    def low_limit(self, monkeypatch):
        """Of 1,000 pixels, Pillow's and ours, in place of 179 million; what the tests admit is forgotten."""
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
        monkeypatch.setattr(module, "MAX_PIXELS", 1000)
        monkeypatch.setattr(module, "_limit", 1000)

    @pytest.mark.parametrize("name", ["rgb.jpg", "progressive.jpg", "rgb.png", "cmyk.tiff"])
    def test_more_pixels_than_the_limit_are_refused(self, tmp_path, name):
        SAVED[name](tmp_path / name)
        for limit in (1000, 61 * 47 - 1):
            admit(limit)
            with pytest.raises(UnreadableImage, match=r"bomb.*max_image_pixels admits more"):
                decode(tmp_path / name)
            assert (fault(tmp_path / name) is None) == name.endswith("jpg")

    @pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "cmyk.tiff"])
    def test_a_higher_limit_admits_them(self, tmp_path, name):
        SAVED[name](tmp_path / name)
        admit(61 * 47)
        assert fault(tmp_path / name) is None
        assert decode(tmp_path / name).shape == (47, 61, 3)

    def test_the_key_sets_it(self, tmp_path):
        SAVED["rgb.png"](tmp_path / "x.png")
        Recipe(check({"max_image_pixels": 3000}, SharedConfig))
        assert decode(tmp_path / "x.png").shape == (47, 61, 3)

    @pytest.mark.parametrize(("limit", "is_read"), [(1200, True), (1199, False)])
    def test_what_counts_is_what_is_decoded(self, tmp_path, limit, is_read):
        Image.fromarray(photo(320, 240)).save(tmp_path / "x.jpg")
        admit(limit)
        with contextlib.nullcontext() if is_read else pytest.raises(UnreadableImage, match="bomb"):
            decode_resized(tmp_path / "x.jpg", lambda *size: resize_box((0, 0, *size), 10, 10, "bilinear"))


@pytest.mark.data
def test_photographs_are_half_a_grey_level_from_pillows():
    folder = Path(os.environ["QUARTET_DATA"]) / "imagenet_photos"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    apart = []
    for path in sorted(folder.iterdir()):
        image = with_pillow(path)
        plan = square_plan(224, crop_percentage=0.875)(*image.shape[:2])
        resized = Image.fromarray(image).resize((plan.width, plan.height), Image.Resampling.BILINEAR)
        square = decode_resized(path, lambda *_: plan)  # noqa: B023
        apart.append(np.abs(square.astype(int) - cut(np.asarray(resized), plan.part)).mean())
    assert len(apart) >= 100 and np.mean(apart) < 0.5 and max(apart) < 1
