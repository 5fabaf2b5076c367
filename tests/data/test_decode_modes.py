# SPDX-License-Identifier: Apache-2.0
"""What each mode of picture means in RGB, by hand; and any damage is a picture or one known error."""

import numpy as np
import pytest
from PIL import Image

from src.data.decode import UnreadableImage, decode
from tests.helpers.pictures import noise


def loaded_pixel(path) -> tuple[int, ...]:
    return tuple(decode(path)[1, 1])


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", (10, 20, 30), "png", (10, 20, 30)),
        ("RGB", (10, 20, 30), "bmp", (10, 20, 30)),
        ("L", 77, "png", (77, 77, 77)),
        ("LA", (50, 0), "png", (255, 255, 255)),
        ("LA", (50, 255), "png", (50, 50, 50)),
        ("RGBA", (0, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (200, 0, 0, 51), "png", (244, 204, 204)),
        ("RGBA", (200, 0, 0, 255), "tiff", (200, 0, 0)),
        ("1", 1, "png", (255, 255, 255)),
        ("1", 0, "png", (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "tiff", (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), "tiff", (0, 0, 0)),
        ("I;16", 65535, "png", (255, 255, 255)),
        ("I;16", 25700, "png", (100, 100, 100)),
        ("I;16", 4095, "png", (255, 255, 255)),  # of a camera of 12 bits
        ("I;16", 257, "png", (64, 64, 64)),  # 10 bits
        ("I", 200, "tiff", (200, 200, 200)),
        ("I", 25700, "tiff", (100, 100, 100)),
        ("F", 0.5, "tiff", (128, 128, 128)),
        ("F", 100.0, "tiff", (100, 100, 100)),
        ("F", 25700.0, "tiff", (100, 100, 100)),
    ],
)
def test_one_colour(tmp_path, mode, colour, suffix, expected):
    path = tmp_path / f"x.{suffix}"
    Image.new(mode, (5, 4), colour).save(path)
    assert loaded_pixel(path) == expected


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
    assert np.allclose(loaded_pixel(tmp_path / "x.jpg"), (255, 0, 0), atol=6)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(tmp_path, transparency):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 8, 7, 1, 2, 3])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "x.png", transparency=transparency)
    assert loaded_pixel(tmp_path / "x.png") == (255, 255, 255)
    assert tuple(decode(tmp_path / "x.png")[0, 0]) == (9, 8, 7)


def test_palette_without_transparency(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 8, 7, 1, 2, 3])
    image.save(tmp_path / "x.gif")
    assert loaded_pixel(tmp_path / "x.gif") == (1, 2, 3)


def test_rgb_with_one_transparent_colour(tmp_path):
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "x.png", transparency=(1, 2, 3))
    assert loaded_pixel(tmp_path / "x.png") == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert loaded_pixel(tmp_path / f"x.{suffix}") == (255, 0, 0)


def test_16_bit_gradient_keeps_its_steps(tmp_path):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(1, 256)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert (decode(tmp_path / "x.png")[0, :, 0] == np.arange(256)).all()


def test_float_beyond_every_usual_range_uses_its_own(tmp_path):
    values = np.array([[-1000.0, 0.0, 1000.0, np.nan]], np.float32)
    Image.fromarray(values).save(tmp_path / "x.tiff")
    assert decode(tmp_path / "x.tiff")[0, :, 0].tolist() == [0, 128, 255, 0]


@pytest.mark.parametrize("values", [[[np.nan, np.inf]], [[-5.0, -5.0]], [[0.0, 0.0]]])
def test_degenerate_float_is_black(tmp_path, values):
    Image.fromarray(np.array(values, np.float32)).save(tmp_path / "x.tiff")
    assert not decode(tmp_path / "x.tiff").any()


def test_exif_orientation(tmp_path):
    stored = noise(4, 6)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(stored).save(path, exif=exif)
        assert np.array_equal(decode(path), expected), orientation


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # silenced once a process, which pytest undoes
def test_damaged_exif_does_not_spoil_the_image(tmp_path):
    Image.fromarray(noise(16, 16)).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(tmp_path / "x.jpg").shape == (16, 16, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tiff", "bmp"])
def test_every_truncation_is_an_image_or_unreadable(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    whole = path.read_bytes()
    refused = 0
    for length in np.linspace(1, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:length])
        try:
            assert decode(path).shape == (64, 64, 3)
        except UnreadableImage:
            refused += 1
    assert refused >= 20


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # ours is lost with pytest's own filters
def test_damaged_bytes_raise_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "gif", "tiff", "webp"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(noise(24, 24)).save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(40):
            damaged = whole.copy()
            damaged[rng.integers(0, min(len(whole), 200), 6)] = rng.integers(0, 256, 6)
            path.write_bytes(damaged.tobytes())
            try:
                assert decode(path).dtype == np.uint8
            except UnreadableImage as error:
                assert "\n" not in str(error)
