# SPDX-License-Identifier: Apache-2.0
"""Distorted copies of pictures, as people make them of each other's: what copy detection has to see through.

The kinds are those that copy detection is measured on since INRIA's Copydays (Douze et al., "Evaluation of
GIST descriptors for web-scale image search", 2009): crops, strong JPEG compression, and "strong" mixtures
with blur, brightness and rotation. Lengths are shares of the picture's own, so that a copy looks the same at
any resolution.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from tqdm import tqdm

from ..common.errors import UserError
from ..common.files import new_folder
from ..data.decode import UnreadableImage, decode
from ..data.resize import cut, resize

MAX_SIDE = 2**15 - 2  # pixels, of OpenCV's warps
FIRST_BLOCK = 200_000  # the number of the first original

_KEPT = (0.5, 0.8)  # a crop's share of each side
_SIGMA = (0.015, 0.03)  # of the Gaussian, as a share of the shorter side
_FACTOR = (1.4, 2.0)  # by which values are multiplied or divided
_DEGREES = (10, 20)
_MAX_ZOOM = 2  # of a rotation: a panorama would have to be magnified much more to cover its corners
_QUALITY = 15  # of JPEG, with half the chroma each way
_STORED_QUALITY = 95  # with full chroma: distortions to be measured, not those of storing


def _crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keeps a share of each side, a quarter of what is lost away from the centre at most; resized back."""
    height, width = image.shape[:2]
    kept = rng.uniform(*_KEPT)
    rows, columns = max(1, round(kept * height)), max(1, round(kept * width))
    down, across = rng.uniform(0.25, 0.75, 2)
    box = round(down * (height - rows)), round(across * (width - columns)), rows, columns
    return resize(cut(image, box), height, width, "bilinear")


def _rotation(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About the centre, magnified until the picture covers its frame; what is left to fill is mirrored."""
    height, width = image.shape[:2]
    angle = rng.uniform(*_DEGREES) * rng.choice((-1, 1))
    radians = np.deg2rad(abs(angle))
    zoom = np.cos(radians) + np.sin(radians) * max(height, width) / min(height, width)
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(centre, angle, min(zoom, _MAX_ZOOM))
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(*_SIGMA) * min(image.shape[:2]))


def _brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    factor = rng.uniform(*_FACTOR) ** rng.choice((-1, 1))
    return cv2.LUT(image, np.clip(np.rint(np.arange(256) * factor), 0, 255).astype(np.uint8))


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(image, _QUALITY, colorsubsampling="420"))


def _strong(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three of the others, in the order of the table: geometry first, as someone edits before saving."""
    for place in np.sort(rng.choice(len(_DISTORTIONS) - 1, 3, replace=False)):
        image = _DISTORTIONS[KINDS[place]](image, rng)
    return image


_DISTORTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "crop": _crop,
    "rotation": _rotation,
    "blur": _blur,
    "brightness": _brightness,
    "jpeg": _jpeg,
    "strong": _strong,
}
KINDS = tuple(_DISTORTIONS)


def distort(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A distorted copy, of the same size; the same one for the same state of `rng`.

    - crop: keeps 0.5 to 0.8 of each side, about the centre, and resizes it back.
    - rotation: by 10 to 20 degrees either way, magnified so that no corner is empty.
    - blur: Gaussian, with a sigma of 1.5 to 3 % of the shorter side.
    - brightness: values times 1.4 to 2, or divided by as much, clipped.
    - jpeg: quality 15.
    - strong: three of these, one after the other.

    Args:
        image: (H, W, 3) uint8, each side 1 to `MAX_SIDE` pixels; left as it is.
        kind: one of `KINDS`.
        rng: what is drawn comes from here.

    Returns:
        (H, W, 3) uint8, C-contiguous.

    Raises:
        ValueError: an unknown kind, or a side of the picture is too long.
    """
    if kind not in KINDS or max(image.shape) > MAX_SIDE:
        raise ValueError(f"kind {kind!r} of {', '.join(KINDS)}, sides {image.shape[:2]} of up to {MAX_SIDE}")
    return _DISTORTIONS[kind](np.ascontiguousarray(image), rng)


def copy_rng(seed: int, number: int) -> np.random.Generator:
    """The generator of one copy: what it is depends on no other."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))


def write_copies(
    files: Sequence[str | Path], folder: str | Path, *, seed: int, kinds: Sequence[str] = KINDS
) -> list[str]:
    """Writes pictures and a distorted copy of each kind of each, in the layout of Copydays.

    Picture i is `original/<number>.<ext>`, byte by byte, with the number 200000 + 100 i. Its copy of a kind
    is `<kind>/<number + place>.jpg` with the place of the kind in `KINDS` (crop 1 ... strong 6), in JPEG of
    quality 95. The folder appears when it is complete.

    Args:
        files: image files, one at least.
        folder: to be made; an empty one is taken.
        seed: 0 or above. A copy depends on it, on i and on the kind alone.
        kinds: which ones, of `KINDS`.

    Returns:
        A line for each picture that was left out: the file, and why it is no readable image.

    Raises:
        UserError: the folder holds something or cannot be written, or no file is a readable image.
    """
    folder, skipped = Path(folder).absolute(), []
    with new_folder(folder) as temporary:
        for name in ("original", *kinds):
            (temporary / name).mkdir()
        for place, file in enumerate(tqdm(files, desc=f"copies in {folder}", disable=None)):
            number = FIRST_BLOCK + 100 * place
            try:
                image = decode(file)
                if max(image.shape) > MAX_SIDE:
                    raise UnreadableImage(str(file), f"a side is longer than {MAX_SIDE} pixels")
            except UnreadableImage as error:
                skipped.append(f"{file}: {error.reason}")
                continue
            shutil.copyfile(file, temporary / "original" / f"{number}{Path(file).suffix.lower()}")
            for kind in kinds:
                own = number + 1 + KINDS.index(kind)
                copy = distort(image, kind, copy_rng(seed, own))
                data = simplejpeg.encode_jpeg(copy, _STORED_QUALITY, colorsubsampling="444")
                (temporary / kind / f"{own}.jpg").write_bytes(data)
        if len(skipped) == len(files):
            raise UserError(f"no picture can be read: {skipped[0]}; give a folder with whole ones")
    return skipped
