# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.binary import CIFAR10, read_set
from src.data.decode import decode_resized
from src.data.prepare.folder import _PLAN, prepare_folder


def save(path, colour, size=(40, 40), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


@pytest.fixture
def images(tmp_path):
    """Two classes of one colour each: 10 red images of class `b`, 5 blue ones of class `a`."""
    root = tmp_path / "images"
    for k in range(10):
        save(root / "b" / f"{k}.png", (255, 0, 0), (30 + k, 50 - k))
    for k in range(5):
        save(root / "a" / f"{k}.png", (0, 0, 255))
    return root


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def pack(images, folder):
    prepare_folder(images, folder, val_fraction=0.2)


def test_more_than_256_classes_are_refused(tmp_path, folder):
    for k in range(257):
        (tmp_path / "images" / f"class {k}").mkdir(parents=True)
        (tmp_path / "images" / f"class {k}" / "0.png").touch()
    with pytest.raises(UserError, match="257 class folders"):
        pack(tmp_path / "images", folder)


def test_packed_images_are_read_back_with_their_classes(images, folder):
    pack(images, folder)
    for split, count in (("train", 12), ("test", 3)):
        data = read_set(CIFAR10, folder, split)
        assert data.class_names == ("a", "b") and len(data) == count
        red, green, blue = data.images.transpose(1, 0, 2, 3).reshape(3, count, -1)
        assert (red == np.where(data.labels == 1, 255, 0)[:, None]).all()
        assert (blue == np.where(data.labels == 0, 255, 0)[:, None]).all()
        assert not green.any()


def test_the_folder_of_the_images_is_no_place_for_the_packed_ones(images):
    """Old behaviour: training on the folder then read 32x32 pictures, without a word."""
    with pytest.raises(UserError, match="training would read the packed ones"):
        pack(images, images / "a" / "..")
    assert sorted(path.name for path in images.iterdir()) == ["a", "b"]


def test_unreadable_files_are_named_and_left_out(images, folder, capsys):
    (images / "a" / "broken.jpg").write_bytes(b"not an image")
    whole = (images / "b" / "0.png").read_bytes()
    (images / "b" / "cut.png").write_bytes(whole[: len(whole) - 20])
    (images / "b" / "empty.png").write_bytes(b"")
    pack(images, folder)
    skipped = capsys.readouterr().err.splitlines()
    names = ["broken.jpg", "cut.png", "empty.png"]
    assert sorted(line.split(": ")[0].rsplit("/", 1)[1] for line in skipped) == names
    assert len(read_set(CIFAR10, folder, "train")) + len(read_set(CIFAR10, folder, "test")) == 15


def test_a_class_without_a_readable_image_is_named(images, folder):
    (images / "c").mkdir()
    (images / "c" / "0.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"class c .*0\.png"):
        pack(images, folder)


def test_no_test_image_is_said(tmp_path, folder):
    for name in ("a", "b"):
        save(tmp_path / "images" / name / "0.png", 0, mode="L")
    with pytest.raises(UserError, match="test image"):
        pack(tmp_path / "images", folder)


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (128, 64), (7, 200), (200, 1)])
def test_the_middle_square_is_resized_with_antialiasing(tmp_path, size):
    """Against a plain average, which a halving with a smooth kernel keeps on a checkerboard of pixels."""
    rows, columns = np.indices(size[::-1])
    checks = (((rows + columns) % 2) * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "checks.png")
    pixels = decode_resized(tmp_path / "checks.png", _PLAN)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    if min(size) >= 64:
        assert abs(pixels[2:-2, 2:-2].astype(int) - 127).max() < 10
    elif min(size) == 32:
        middle = checks[:, 16:48] if size == (64, 32) else checks[16:48]
        np.testing.assert_array_equal(pixels, np.stack([middle] * 3, axis=2))


def test_images_are_upright_and_transparency_is_white(tmp_path, folder):
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 40, 20))
    exif = image.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "images" / name, exif=exif)
    pack(tmp_path / "images", folder)
    for split in ("train", "test"):
        pixels = read_set(CIFAR10, folder, split).images
        assert len(pixels) == 2 and (pixels[:, :, 0] == 255).all() and (pixels[:, :, -1] == 0).all()


def test_the_classes_are_mixed_in_the_packed_files(images, folder):
    pack(images, folder)
    labels = read_set(CIFAR10, folder, "train").labels.tolist()
    assert labels not in (sorted(labels), sorted(labels, reverse=True))
