import dataclasses
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.decode import UnreadableImage
from src.deploy.card import ModelCard
from src.deploy.images import load_image, normalise, preprocess
from tests.helpers.pictures import noise


def plain_card(size: int) -> ModelCard:
    """A card whose normalisation changes nothing, so that pixels can be read off."""
    return ModelCard("m", ["a"], size, [0, 0, 0], [1, 1, 1], interpolation="bicubic")


def loaded_pixel(path) -> tuple[int, ...]:
    image = load_image(path)
    assert image.mode == "RGB"
    return image.getpixel((1, 1))


class TestModes:
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
    def test_one_colour(self, tmp_path, mode, colour, suffix, expected):
        path = tmp_path / f"x.{suffix}"
        Image.new(mode, (5, 4), colour).save(path)
        assert loaded_pixel(path) == expected

    def test_cmyk_jpeg(self, tmp_path):
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
        assert np.allclose(loaded_pixel(tmp_path / "x.jpg"), (255, 0, 0), atol=6)

    @pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
    def test_palette_with_transparency(self, tmp_path, transparency):
        image = Image.new("P", (4, 4), 1)
        image.putpalette([9, 8, 7, 1, 2, 3])
        image.putpixel((0, 0), 0)
        image.save(tmp_path / "x.png", transparency=transparency)
        assert loaded_pixel(tmp_path / "x.png") == (255, 255, 255)
        assert load_image(tmp_path / "x.png").getpixel((0, 0)) == (9, 8, 7)

    def test_palette_without_transparency(self, tmp_path):
        image = Image.new("P", (4, 4), 1)
        image.putpalette([9, 8, 7, 1, 2, 3])
        image.save(tmp_path / "x.gif")
        assert loaded_pixel(tmp_path / "x.gif") == (1, 2, 3)

    def test_rgb_with_one_transparent_colour(self, tmp_path):
        Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "x.png", transparency=(1, 2, 3))
        assert loaded_pixel(tmp_path / "x.png") == (255, 255, 255)

    @pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
    def test_animation_gives_its_first_frame(self, tmp_path, suffix):
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
        assert loaded_pixel(tmp_path / f"x.{suffix}") == (255, 0, 0)

    def test_16_bit_gradient_keeps_its_steps(self, tmp_path):
        values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(1, 256)
        Image.fromarray(values).save(tmp_path / "x.png")
        assert (np.asarray(load_image(tmp_path / "x.png"))[0, :, 0] == np.arange(256)).all()

    def test_float_beyond_every_usual_range_uses_its_own(self, tmp_path):
        values = np.array([[-1000.0, 0.0, 1000.0, np.nan]], np.float32)
        Image.fromarray(values).save(tmp_path / "x.tiff")
        assert np.asarray(load_image(tmp_path / "x.tiff"))[0, :, 0].tolist() == [0, 128, 255, 0]

    @pytest.mark.parametrize("values", [[[np.nan, np.inf]], [[-5.0, -5.0]], [[0.0, 0.0]]])
    def test_degenerate_float_is_black(self, tmp_path, values):
        Image.fromarray(np.array(values, np.float32)).save(tmp_path / "x.tiff")
        assert not np.asarray(load_image(tmp_path / "x.tiff")).any()

    def test_exif_orientation(self, tmp_path):
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
            assert np.array_equal(np.asarray(load_image(path)), expected), orientation

    def test_damaged_exif_does_not_spoil_the_image(self, tmp_path):
        Image.fromarray(noise(16, 16)).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
        assert load_image(tmp_path / "x.jpg").size == (16, 16)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height black pixels and delivers none."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


class TestUnreadable:
    def check(self, path, reason):
        with pytest.raises(UnreadableImage, match=reason) as caught:
            load_image(path)
        assert isinstance(caught.value, UserError)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        assert str(path) not in caught.value.reason or reason == "cannot be decoded"

    def test_missing(self, tmp_path):
        self.check(tmp_path / "x.png", "No such file")

    def test_folder(self, tmp_path):
        self.check(tmp_path, "Is a directory")

    def test_empty(self, tmp_path):
        (tmp_path / "x.png").touch()
        self.check(tmp_path / "x.png", "empty")

    def test_text(self, tmp_path):
        (tmp_path / "x.png").write_text("hello")
        self.check(tmp_path / "x.png", "not an image")

    def test_bomb(self, tmp_path):
        (tmp_path / "x.png").write_bytes(png_header(20_000, 20_000))
        self.check(tmp_path / "x.png", "decompression bomb")

    def test_no_pixels(self, tmp_path):
        (tmp_path / "x.png").write_bytes(png_header(8, 8))
        self.check(tmp_path / "x.png", "cannot be decoded")

    @pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tiff", "bmp"])
    def test_every_truncation_is_an_image_or_unreadable(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(noise(64, 64)).save(path)
        whole = path.read_bytes()
        refused = 0
        for length in np.linspace(1, len(whole) - 1, 25).astype(int):
            path.write_bytes(whole[:length])
            try:
                assert load_image(path).size == (64, 64)
            except UnreadableImage:
                refused += 1
        assert refused >= 20

    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # ours is lost with pytest's own filters
    def test_damaged_bytes_raise_nothing_else(self, tmp_path):
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
                    assert load_image(path).mode == "RGB"
                except UnreadableImage as error:
                    assert "\n" not in str(error)


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """Resampling by Keys' cubic (a = -0.5), widened when shrinking, as a matrix (new, old) in float64."""
    scale = old / new
    width = max(scale, 1.0)
    distance = np.abs(((np.arange(new) + 0.5) * scale)[:, None] - (np.arange(old) + 0.5)) / width
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


class TestPreprocess:
    def test_right_size_passes_bit_for_bit(self):
        pixels = noise(32, 32)
        output = preprocess(Image.fromarray(pixels), plain_card(32))
        assert output.dtype == np.float32 and output.flags["C_CONTIGUOUS"]
        assert np.array_equal(output, pixels.transpose(2, 0, 1).astype(np.float32))

    def test_right_short_side_is_cropped_bit_for_bit(self):
        pixels = noise(32, 47)
        output = preprocess(Image.fromarray(pixels), plain_card(32))
        assert np.array_equal(output, pixels[:, 7:39].transpose(2, 0, 1).astype(np.float32))

    def test_normalises_each_channel(self):
        card = ModelCard("m", ["a"], 4, [125.31, 122.95, 113.87], [62.99, 62.09, 66.70])
        pixels = noise(4, 4)
        expected = (pixels.astype(np.float64) - card.mean) / np.array(card.std)
        output = preprocess(Image.fromarray(pixels), card)
        assert np.allclose(output, expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("interpolation", ["bicubic", "tf_bilinear"])
    def test_a_model_that_normalises_gets_the_pixels(self, interpolation):
        card = ModelCard("m", ["a"], 4, [125, 122, 113], [62, 61, 66], interpolation=interpolation)
        image = Image.fromarray(noise(7, 9))
        pixels = preprocess(image, dataclasses.replace(card, input_type="uint8"))
        assert pixels.shape == (4, 4, 3) and pixels.dtype == np.uint8
        assert np.array_equal(normalise(pixels, card), preprocess(image, card))

    @pytest.mark.parametrize(
        "size", [(100, 60), (60, 100), (33, 32), (20, 15), (31, 97), (640, 480), (7, 200), (1, 40)]
    )
    def test_equals_resizing_the_whole_and_cropping(self, size):
        """The values are far from 0 and 255, so that clipping between the two passes plays no part."""
        pixels = np.random.default_rng(3).integers(80, 176, (size[1], size[0], 3), dtype=np.uint8)
        across, down = (bicubic_matrix(side, max(32, round(side * 32 / min(size)))) for side in size)
        whole = np.einsum("yh,xw,hwc->yxc", down, across, pixels.astype(np.float64), optimize=True)
        top, left = (whole.shape[0] - 32) // 2, (whole.shape[1] - 32) // 2
        output = preprocess(Image.fromarray(pixels), plain_card(32)).transpose(1, 2, 0)
        assert np.abs(output - whole[top : top + 32, left : left + 32]).max() <= 1.1

    @pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (10_000, 3), (3, 10_000), (1, 10_000)])
    @pytest.mark.parametrize("side", [32, 480])
    def test_extreme_shapes(self, size, side):
        output = preprocess(Image.new("RGB", size, (10, 20, 30)), plain_card(side))
        assert output.shape == (3, side, side)
        assert np.array_equal(output[:, 0, 0], [10, 20, 30]) and (output == output[:, :1, :1]).all()

    def test_panorama_keeps_its_centre(self):
        pixels = np.zeros((3, 10_000, 3), np.uint8)
        pixels[:, 4_990:5_010] = 200
        assert (preprocess(Image.fromarray(pixels), plain_card(32)) == 200).all()
