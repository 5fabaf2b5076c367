# SPDX-License-Identifier: Apache-2.0
"""A packed file as a model, for other programs: numpy and llvmlite are all that it needs."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError
from .engine import Engine
from .file import read_packed

MODEL = "model.packed"


class PackedModel:
    """A network of 1-bit convolutions that runs as such, on the CPU.

        from quartet.deploy.packed import PackedModel
        model = PackedModel("model.packed")
        model.class_names[model.logits(pixels).argmax()]

    Args:
        path: a .packed file, or the folder of an export that has one.
        threads: that compute together; 0: one for each core that this process may use.

    Attributes:
        card: what the file says of the network, its training pictures and its classes; see `deploy.card`.
        class_names: of the logits, in order.
        image_size: the side of the squares that it was trained and compared on.

    Raises:
        UserError: the file cannot be read, is none or is damaged; or `threads` is below 0, or above 1024.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 0):
        path = Path(path)
        program, self.card = read_packed(path / MODEL if path.is_dir() else path)
        self.class_names = tuple(self.card["class_names"])
        how = self.card["preparation"]
        self.image_size: int = how["image_size"]
        self._mean, self._std = (np.array(how[key], np.float32) for key in ("mean", "std"))
        self._engine = Engine(program, threads=threads)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Runs any number of images; an image's logits do not depend on the others, or on the threads.

        Args:
            images: uint8 (N, H, W, 3), RGB; or, normalised by the card's mean and std already, float32
                (N, 3, H, W). H and W may be others than `image_size`, where the network takes them.

        Returns:
            float32 (N, K).

        Raises:
            UserError: images of this shape or type are not for this network.
        """
        shape, dtype = np.shape(images), getattr(images, "dtype", None)
        try:
            if dtype == np.uint8 and len(shape) == 4 and shape[3] == len(self._mean):
                images = ((images.astype(np.float32) - self._mean) / self._std).transpose(0, 3, 1, 2)
            elif dtype != np.float32 or len(shape) != 4 or shape[1] != len(self._mean):
                raise ValueError("it takes uint8 (N, H, W, 3) or float32 (N, 3, H, W)")
            return self._engine(images)
        except ValueError as error:
            raise UserError(f"images of type {dtype} and shape {shape}: {error}") from error

    def classify(self, picture: Any, *, top: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of one picture and their probabilities, by softmax.

        The picture becomes the network's input as in training and evaluation, which takes four packages more:
        opencv-python-headless, pillow, simplejpeg and scipy.

        Args:
            picture: a file's path or bytes, or uint8 (H, W, 3), RGB, of any size.
            top: how many classes.

        Raises:
            UserError: the picture cannot be read, a package is missing, or `top` is below 1.
        """
        if top < 1:
            raise UserError(f"top: {top} classes cannot be shown; give 1 or more")
        try:
            from ...data.preparation import Preparation
        except ImportError as error:
            raise UserError(
                f"to prepare pictures, {error.name} is needed: pip install opencv-python-headless pillow "
                "simplejpeg scipy; or prepare them yourself and call `logits`"
            ) from error
        how = Preparation(**self.card["preparation"])
        square = how.square(picture) if isinstance(picture, np.ndarray) else how.read_square(picture)
        logits = self.logits(square[None])[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        order = np.argsort(-logits, kind="stable")[:top]
        return [(self.class_names[k], float(shares[k] / shares.sum())) for k in order]
