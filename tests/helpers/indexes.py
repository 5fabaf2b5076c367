# SPDX-License-Identifier: Apache-2.0
"""Small indexes of pictures of one colour, without a network."""

import os

import numpy as np
from PIL import Image

from src.data.decode import UnreadableImage
from src.data.folders import find_in
from src.data.preparation import Preparation
from src.retrieval.index import PictureIndex, update

PLAN = Preparation(8, (0, 0, 0), (1, 1, 1)).plan_whole
IDENTITY = {"image_size": 8, "checkpoint_sha256": "ab12"}


def embed_pixels(pictures, *, skip):
    """Keeps the interface of `Embedder.embed`: the mean colour and its squares, of length 1."""
    for file, read in pictures:
        try:
            colour = read(PLAN).mean((0, 1))
        except UnreadableImage as error:
            skip(file, error)
            continue
        vector = np.concatenate([colour + 1, colour**2 / 255])
        yield file, (vector / np.linalg.norm(vector)).astype(np.float32)


class Counted:
    """`embed_pixels` that knows which files it was asked for, and can stop before one."""

    def __init__(self, stop_before=None):
        self.files, self.stop_before = [], stop_before

    def __call__(self, pictures, *, skip):
        def watched():
            for file, read in pictures:
                name = os.path.basename(file)
                if name == self.stop_before:
                    raise KeyboardInterrupt
                self.files.append(name)
                yield file, read

        return embed_pixels(watched(), skip=skip)


def draw(path, seed):
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, 3)
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.tile(colour, (6, 5, 1)).astype(np.uint8)).save(path)


def build(index, *roots, embed=embed_pixels, **how):
    how = {"identity": IDENTITY, "reopen": {"checkpoint": "net.ckpt"}, **how}
    pictures = {str(root): find_in(root).files if os.path.isdir(root) else [] for root in roots}
    return update(index, pictures, embed=embed, **how)


def contents(index):
    """file -> vector, as searches see them."""
    opened = PictureIndex.open(index)
    assert opened.files == sorted(opened.files)
    return dict(zip(opened.files, opened.vectors, strict=True))


def same(one, other):
    one, other = contents(one), contents(other)
    return list(one) == list(other) and all((one[file] == other[file]).all() for file in one)


def counts(facts):
    names = ("files", "added", "changed", "moved", "unchanged", "removed", "skipped")
    return [facts[name] for name in names]
