import numpy as np
import pytest
from PIL import Image

from src.data.cifar10 import read_cifar10
from src.data.folder import list_folder, pack_folder, to_pixels
from src.model_utils.errors import UserError


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
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def listed(images, test_fraction=0.2, seed=0):
    return list_folder(images, test_fraction=test_fraction, seed=seed)


def names(items):
    return sorted((path.parent.name, path.name) for path, _ in items)


def fails(images):
    with pytest.raises(UserError) as caught:
        listed(images)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_share_of_each_class_is_held_out(images):
    listing = listed(images)
    assert listing.class_names == ("a", "b")
    assert [sum(label == k for _, label in listing.test) for k in (0, 1)] == [1, 2]
    assert [sum(label == k for _, label in listing.train) for k in (0, 1)] == [4, 8]
    assert all(path.parent.name == "ab"[label] for path, label in listing.train + listing.test)
    assert len(set(names(listing.train) + names(listing.test))) == 15


def test_the_split_is_a_function_of_the_seed(images):
    assert listed(images) == listed(images)
    assert len({tuple(names(listed(images, seed=seed).test)) for seed in range(5)}) > 1
    labels = [label for _, label in listed(images).train]
    assert labels not in (sorted(labels), sorted(labels, reverse=True))


def test_each_split_has_an_image_of_a_class_where_there_are_two(images):
    save(images / "c" / "0.png", 0, mode="L")
    save(images / "c" / "1.png", 0, mode="L")
    save(images / "d" / "0.png", 0, mode="L")
    for fraction in (0.01, 0.99):
        listing = listed(images, test_fraction=fraction)
        assert {label for _, label in listing.train} == {0, 1, 2, 3}
        assert {label for _, label in listing.test} == {0, 1, 2}


@pytest.mark.parametrize("name", ["test", "val"])
def test_folders_of_splits_are_taken_as_they_are(tmp_path, images, name):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    save(root / name / "b" / "x.png", (255, 0, 0))
    listing = listed(root)
    assert names(listing.test) == [("b", "x.png")] and listing.test[0][1] == 1
    assert len(listing.train) == 15


def test_a_training_folder_alone_is_split(tmp_path, images):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    assert len(listed(root).test) == 3 and listed(root).class_names == ("a", "b")


def test_train_can_be_the_name_of_a_class(images):
    save(images / "train" / "0.png", 0, mode="L")
    assert listed(images).class_names == ("a", "b", "train")


def test_hidden_files_and_folders_are_passed_over(images):
    (images / ".cache").mkdir()
    (images / "a" / ".DS_Store").write_bytes(b"x")
    listing = listed(images)
    assert listing.class_names == ("a", "b") and len(listing.train + listing.test) == 15


def test_wrong_layouts_are_said(tmp_path, images):
    assert "not a folder" in fails(tmp_path / "nowhere")
    assert "0 class folders" in fails(images / "a")
    (images / "two\nlines").mkdir()
    assert "rename" in fails(images)


def test_a_test_class_that_is_not_trained_is_named(tmp_path, images):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    save(root / "test" / "c" / "x.png", 0, mode="L")
    message = fails(root)
    assert str(root / "test" / "c") in message


def test_more_than_256_classes_are_refused(tmp_path):
    for k in range(257):
        (tmp_path / f"class {k}").mkdir()
    assert "257 class folders" in fails(tmp_path)


def test_packed_images_are_read_back_with_their_classes(images, folder):
    assert pack_folder(listed(images), folder) == []
    for split, count in (("train", 12), ("test", 3)):
        data = read_cifar10(folder, split)
        assert data.class_names == ("a", "b") and len(data) == count
        red, green, blue = data.images.transpose(1, 0, 2, 3).reshape(3, count, -1)
        assert (red == np.where(data.labels == 1, 255, 0)[:, None]).all()
        assert (blue == np.where(data.labels == 0, 255, 0)[:, None]).all()
        assert not green.any()


def test_unreadable_files_are_named_and_left_out(images, folder):
    (images / "a" / "broken.jpg").write_bytes(b"not an image")
    whole = (images / "b" / "0.png").read_bytes()
    (images / "b" / "cut.png").write_bytes(whole[: len(whole) - 20])
    (images / "b" / "empty.png").write_bytes(b"")
    skipped = pack_folder(listed(images), folder)
    assert sorted(line.split(": ")[0].rsplit("/", 1)[1] for line in skipped) == [
        "broken.jpg",
        "cut.png",
        "empty.png",
    ]
    assert all("\n" not in line for line in skipped)
    assert len(read_cifar10(folder, "train")) + len(read_cifar10(folder, "test")) == 15


def test_a_class_without_a_readable_image_is_named(images, folder):
    (images / "c").mkdir()
    (images / "c" / "0.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"class c .*0\.png"):
        pack_folder(listed(images), folder)
    (images / "c" / "0.png").unlink()
    with pytest.raises(UserError, match=r"class c "):
        pack_folder(listed(images), folder)


def test_no_test_image_is_said(tmp_path, folder):
    save(tmp_path / "images" / "a" / "0.png", 0, mode="L")
    with pytest.raises(UserError, match="test image"):
        pack_folder(listed(tmp_path / "images"), folder)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 200, (200, 200, 200)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 100 * 257, (100, 100, 100)),
        ("I", 100 * 257, (100, 100, 100)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, expected):
    pixels = to_pixels(Image.new(mode, (50, 40), colour))
    assert pixels.shape == (3, 32, 32) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, 16, 16], expected)
    np.testing.assert_array_equal(pixels, np.broadcast_to(pixels[:, :1, :1], pixels.shape))


def test_palettes_become_rgb_with_and_without_transparency(tmp_path):
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    np.testing.assert_array_equal(to_pixels(image)[:, 0, 0], (10, 20, 30))
    image.save(tmp_path / "p.png", transparency=1)
    with Image.open(tmp_path / "p.png") as image:
        np.testing.assert_array_equal(to_pixels(image)[:, 0, 0], (255, 255, 255))


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (128, 64), (7, 200), (200, 1)])
def test_the_middle_square_is_resized_with_antialiasing(size):
    """Against a plain average, which a halving with a smooth kernel keeps on a checkerboard of pixels."""
    rows, columns = np.indices(size[::-1])
    checks = (((rows + columns) % 2) * 255).astype(np.uint8)
    pixels = to_pixels(Image.fromarray(checks))
    assert pixels.shape == (3, 32, 32)
    if min(size) >= 64:
        assert abs(pixels[:, 2:-2, 2:-2].astype(int) - 127).max() < 10
    elif min(size) == 32:
        middle = checks[:, 16:48] if size == (64, 32) else checks[16:48]
        np.testing.assert_array_equal(pixels, np.stack([middle] * 3))


def test_images_of_a_camera_are_turned_upright(tmp_path):
    image = Image.new("RGB", (40, 40), "white")
    image.paste("black", (0, 0, 40, 20))
    exif = image.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        pixels = to_pixels(turned)
    assert (pixels[:, 0] == 255).all() and (pixels[:, -1] == 0).all()
