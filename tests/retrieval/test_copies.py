# SPDX-License-Identifier: Apache-2.0
"""Every kind of copy, on pictures of every shape, and the folder they are written into."""

import cv2
import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.decode import decode
from src.retrieval.copies import KINDS, copy_rng, distort, write_copies
from tests.helpers.pictures import smooth

SHAPES = [(1, 1), (1, 40), (50, 2), (3, 3), (64, 64), (75, 100), (300, 40)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_another_picture_of_the_same_size(kind):
    for shape in SHAPES:
        image = smooth(*shape)
        before = image.copy()
        copy = distort(image, kind, np.random.default_rng(1))
        assert copy.shape == image.shape and copy.dtype == np.uint8 and copy.flags.c_contiguous
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(copy, distort(np.asfortranarray(image), kind, np.random.default_rng(1)))
        if min(shape) >= 40:
            assert np.abs(copy.astype(float) - image).mean() > 1
    others = [distort(smooth(64, 64), kind, np.random.default_rng(seed)) for seed in range(2, 4)]
    assert (kind == "jpeg") is np.array_equal(*others)


def ramp(height, width):
    """Red is the row, green the column: a copy says where its pixels are from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_a_crop_keeps_half_of_each_side_at_least_about_the_centre():
    spans = []
    for seed in range(100):
        copy = distort(ramp(100, 200), "crop", np.random.default_rng(seed)).astype(float)
        for channel, side in ((0, 100), (1, 200)):
            low, high = copy[..., channel].min() / side, copy[..., channel].max() / side
            spans.append(high - low)
            assert low >= 0.03 and low <= (1 - (high - low)) * 0.75 + 0.02
    assert 0.48 < min(spans) < 0.55 and 0.75 < max(spans) < 0.82


def test_a_rotation_keeps_the_centre_and_shows_no_border():
    signs = set()
    for seed in range(20):
        copy = distort(ramp(101, 121), "rotation", np.random.default_rng(seed)).astype(float)
        np.testing.assert_allclose(copy[50, 60], [50, 60, 0], atol=1)
        down, across = copy[70, 60, :2] - copy[30, 60, :2]  # the direction of the column, by its own pixels
        angle = np.degrees(np.arctan2(across, down))
        assert 9 < abs(angle) < 21
        signs.add(np.sign(angle))
        # Were a corner mirrored, the linear ramp would bend.
        np.testing.assert_allclose(copy[0, 0] + copy[-1, -1], 2 * copy[50, 60], atol=2)
        np.testing.assert_allclose(copy[0, -1] + copy[-1, 0], 2 * copy[50, 60], atol=2)
    assert signs == {-1, 1}


def test_blur_follows_the_size_and_brightness_goes_both_ways():
    dot = np.zeros((400, 400, 3), np.uint8)
    dot[150:250, 150:250] = 255
    edge = distort(dot, "blur", np.random.default_rng(0))[200, :200, 0].astype(float)
    width = np.interp([0.1587 * 255, 0.8413 * 255], edge, np.arange(200))  # two sigmas
    assert 0.015 * 400 <= np.diff(width)[0] / 2 <= 0.03 * 400
    grey = np.full((2, 2, 3), 100, np.uint8)
    values = [distort(grey, "brightness", np.random.default_rng(seed))[0, 0, 0] for seed in range(60)]
    assert 50 <= min(values) < 55 and 195 < max(values) <= 200
    assert not any(72 < value < 140 for value in values)


def test_jpeg_is_of_quality_15():
    grey = np.repeat(
        smooth(64, 64)[..., :1], 3, axis=2
    )  # with colours, decoders differ between pixels of chroma
    copy = distort(grey, "jpeg", np.random.default_rng(0))
    _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 15])
    theirs = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(float)
    assert np.abs(copy - theirs).mean() < 0.3  # what rounding does to a few blocks
    assert np.abs(grey - theirs).mean() > 1


def test_strong_is_more_than_one():
    singles = [distort(smooth(64, 64), kind, np.random.default_rng(0)) for kind in KINDS[:-1]]
    assert not any(
        np.array_equal(distort(smooth(64, 64), "strong", np.random.default_rng(0)), s) for s in singles
    )


def test_what_cannot_be_distorted():
    with pytest.raises(ValueError, match="'mirror' of crop"):
        distort(smooth(64, 64), "mirror", np.random.default_rng(0))
    with pytest.raises(ValueError, match="up to 32766"):
        distort(np.zeros((32767, 1, 3), np.uint8), "crop", np.random.default_rng(0))


@pytest.fixture
def files(tmp_path):
    names = [tmp_path / "in" / "b.PNG", tmp_path / "in" / "a.jpg"]
    names[0].parent.mkdir()
    for seed, name in enumerate(names):
        Image.fromarray(smooth(60, 80, seed)).save(name)
    return names


def read_all(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder(files, tmp_path):
    write_copies(files, tmp_path / "copies", seed=3)
    found = read_all(tmp_path / "copies")
    copies = {f"{kind}/{200_001 + k + more}.jpg" for more in (0, 100) for k, kind in enumerate(KINDS)}
    assert found.keys() == {"original/200000.png", "original/200100.jpg"} | copies
    assert found["original/200000.png"] == files[0].read_bytes()
    for place, kind in enumerate(KINDS):
        stored = decode(found[f"{kind}/{200_101 + place}.jpg"]).astype(float)
        expected = distort(decode(files[1]), kind, copy_rng(3, 200_101 + place))
        assert np.abs(stored - expected).mean() < 2
    (tmp_path / "some").mkdir()
    write_copies(files, tmp_path / "some", seed=3, kinds=["jpeg"])
    some = read_all(tmp_path / "some")
    names = {"original/200000.png", "original/200100.jpg", "jpeg/200005.jpg", "jpeg/200105.jpg"}
    assert some == {name: found[name] for name in names}


def test_what_is_refused_leaves_everything_as_it_was(files, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with pytest.raises(UserError, match="full exists already; remove it"):
        write_copies(files, tmp_path / "full", seed=0)
    for file in files:
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"no picture can be read: .*b\.PNG: not an image"):
        write_copies(files, tmp_path / "copies", seed=0)
    Image.new("L", (40_000, 2)).save(files[1].with_suffix(".png"))
    with pytest.raises(UserError, match=r"a\.png: a side is longer than 32766"):
        write_copies([files[1].with_suffix(".png")], tmp_path / "copies", seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "full"}
    assert read_all(tmp_path / "full") == {"mine": b"kept"}
