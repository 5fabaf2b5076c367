"""What infer.py does with a model: classifies pictures, and shows the answers to people and programs."""

import argparse
import os
import sys

from ..common.errors import UserError
from ..data.folders import LeftOut, number_of
from .classify import classify
from .pictures import find_pictures
from .predict import Predictor
from .render import render_json, render_text


def classify_from_flags(predictor: Predictor, flags: argparse.Namespace) -> None:
    """Prints the answers, and on standard error what folders hold besides.

    Args:
        flags: images, labels, top, json and summary; see infer.py.

    Raises:
        UserError: after the answers, if a picture or folder could not be read; or as `find_pictures`.
    """
    left_out = LeftOut()
    class_names = predictor.card.class_names
    pictures = find_pictures(flags.images, class_names, labels=flags.labels, left_out=left_out)
    if any(map(os.path.isdir, flags.images)):
        print(number_of(len(pictures), "picture"), left_out.in_words(), sep="\n", file=sys.stderr)
    found = classify(predictor, pictures, top=flags.top)
    print(render_json(found) if flags.json else render_text(found, summary=flags.summary))
    left_out.refuse_unreadable()
    if found.skipped:
        raise UserError(f"{len(found.skipped)} of {len(pictures)} images could not be read and were skipped")
