"""What infer.py does with a model: classifies pictures, and shows the answers to people and programs."""

import argparse
import os
import sys

from ..common.errors import UserError
from ..data.decode import admit
from .classify import classify
from .examples import find_examples
from .predict import Predictor
from .render import render_json, render_text


def classify_from_flags(predictor: Predictor, flags: argparse.Namespace) -> None:
    """Prints the answers, and on standard error what folders hold besides.

    Args:
        flags: images, max_image_pixels, labels, top, workers, json and summary; see infer.py.

    Raises:
        UserError: after the answers, if a picture or folder could not be read; or as `find_examples`.
    """
    if (pixels := flags.max_image_pixels) is not None:
        if pixels < 1:
            raise UserError(f"max_image_pixels: {pixels} given, allowed: a whole number >= 1")
        admit(pixels)
    examples, listed = find_examples(flags.images, predictor.card.class_names, labels=flags.labels)
    if any(map(os.path.isdir, flags.images)):
        print(*listed.in_words(), sep="\n", file=sys.stderr)
    found = classify(predictor, examples, top=flags.top, workers=flags.workers)
    print(render_json(found) if flags.json else render_text(found, summary=flags.summary))
    listed.left_out.refuse_unreadable()
    if found.skipped:
        raise UserError(f"{len(found.skipped)} of {len(examples)} images could not be read and were skipped")
