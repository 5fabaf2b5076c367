# SPDX-License-Identifier: Apache-2.0
"""Image files of every kind, and their pixels by Pillow alone."""

import numpy as np
from PIL import Image, ImageOps

from tests.helpers.pictures import photo


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
