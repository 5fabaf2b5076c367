# SPDX-License-Identifier: Apache-2.0
"""What infer.py does with a model: classifies pictures, and shows the answers to people and programs."""

import argparse
import os
import sys
from pathlib import Path

from ..common.errors import UserError
from ..common.files import write_text, writing
from ..data.decode import admit
from .classify import classify
from .examples import find_examples
from .predict import Predictor
from .render import render_json, render_text


def classify_from_flags(predictor: Predictor, flags: argparse.Namespace) -> None:
    """Prints the answers, and on standard error what folders hold besides.

    Args:
        flags: images, max_image_pixels, labels, top, workers, json, summary and output; see infer.py.

    Raises:
        UserError: after the answers, if a picture or folder could not be read; or as `find_examples`, or the
            output cannot be written.
    """
    output = flags.output and _writable(Path(flags.output))
    if (pixels := flags.max_image_pixels) is not None:
        if pixels < 1:
            raise UserError(f"max_image_pixels: {pixels} given, allowed: a whole number >= 1")
        admit(pixels)
    examples, listed = find_examples(flags.images, predictor.card.class_names, labels=flags.labels)
    if any(map(os.path.isdir, flags.images)):
        print(*listed.in_words(), sep="\n", file=sys.stderr)
    found = classify(predictor, examples, top=flags.top, workers=flags.workers)
    print(render_json(found) if flags.json else render_text(found, summary=flags.summary))
    if output:
        write_text(output, render_json(found) + "\n")
        print(f"answers      {output}", file=sys.stderr if flags.json else sys.stdout)
    listed.left_out.refuse_unreadable()
    if found.skipped:
        raise UserError(f"{len(found.skipped)} of {len(examples)} images could not be read and were skipped")


def _writable(path: Path) -> Path:
    """`path` itself, whose folder is made: a file that cannot be written is said before hours of work."""
    if path.is_dir():
        raise UserError(f"output: {path} is a folder; name a file")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"output: {path.parent} is read-only; name a file in another folder")
    return path
