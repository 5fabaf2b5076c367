# SPDX-License-Identifier: Apache-2.0
"""What is on a picture."""

import numpy as np
from matplotlib.text import Text
from PIL import Image


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return np.asarray(image.convert("RGB")).astype(int)


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
