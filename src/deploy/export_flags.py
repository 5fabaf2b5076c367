# SPDX-License-Identifier: Apache-2.0
"""The flags of export.py."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from .formats import FORMATS, find_format, names_in_words

if TYPE_CHECKING:
    from .onnx.calibration import Calibration

HELP = {
    "file_format": f"{names_in_words()} (default MINDIR)",
    "file_name": "folder to write; FOLDER/ with a slash: a new one in FOLDER (default: in the run's folder)",
    "export_batch_size": "MINDIR, AIR: images in a batch; each of several sizes becomes a file (default 1)",
    "input": "what the file takes; float32: normalised NCHW; uint8: NHWC pixels (default float32)",
    "fold": "merge normalisation and scales into the convolutions before them, where possible (default true)",
    "real_weights": "PACKED: type of the weights that are not 1-bit (default float32)",
    "quantise": "ONNX: compute in 8 bits; needs --calibration",
    "calibration": "int8: folder of at least 100 pictures; some set its ranges, others check the result",
    "calibration_images": "int8: pictures that set its ranges, at most half of the folder's (default 512)",
    "accept_difference": "write the file even if its answers differ too much from the network's",
}


def add_export_flags(flags: argparse.ArgumentParser) -> None:
    """Adds them to those that name the checkpoint."""
    flags.add_argument("--file_format", default="MINDIR", help=HELP["file_format"])
    flags.add_argument("--file_name", metavar="FOLDER", help=HELP["file_name"])
    flags.add_argument("--export_batch_size", metavar="N[,N...]", help=HELP["export_batch_size"])
    flags.add_argument("--input", default="float32", choices=("float32", "uint8"), help=HELP["input"])
    flags.add_argument("--fold", default="true", choices=("true", "false"), help=HELP["fold"])
    flags.add_argument("--real_weights", choices=("float32", "float16"), help=HELP["real_weights"])
    flags.add_argument("--quantise", choices=("int8",), help=HELP["quantise"])
    flags.add_argument("--calibration", metavar="DIR", help=HELP["calibration"])
    flags.add_argument("--calibration_images", metavar="N", type=int, help=HELP["calibration_images"])
    flags.add_argument("--accept_difference", action="store_true", help=HELP["accept_difference"])


def export_choices(flags: argparse.Namespace) -> dict[str, Any]:
    """`file_format`, `batch_sizes`, `fold` and `options`, as `export_model` and `output_folder` take them.

    Raises:
        UserError: one of them is none, or what int8 needs is missing.
    """
    if flags.quantise and not flags.calibration:
        raise UserError("quantise: no --calibration given; name a folder of pictures like those it is for")
    if flags.quantise and flags.fold == "false":  # norms in float between its convolutions would slow it down
        raise UserError("quantise: int8 is made of a folded network; leave --fold false out")
    for name in ("calibration", "calibration_images"):
        if getattr(flags, name) is not None and not flags.quantise:
            raise UserError(f"{name}: {getattr(flags, name)} given, allowed: only with --quantise int8")
    sizes, kind = flags.export_batch_size, find_format(flags.file_format)
    if sizes is not None:
        words = sizes.split(",")
        if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
            raise UserError(f"export_batch_size: {sizes} given, allowed: whole numbers above 0, as 1,8,32")
        sizes = sorted(set(map(int, words)))
    kind.batch_sizes(sizes)  # before a checkpoint is opened
    given = {}
    for other in FORMATS.values():
        of_it = {name: getattr(flags, name) for name in other.options if getattr(flags, name) is not None}
        if of_it and other is not kind:
            name = next(iter(of_it))
            raise UserError(f"{name}: given, which is for --file_format {other.name}; leave it out")
        given |= of_it
    return {
        "file_format": kind.name,
        "batch_sizes": sizes,
        "fold": flags.fold == "true",
        "options": given,
    }


def find_calibration(flags: argparse.Namespace, class_names: Sequence[str]) -> "Calibration | None":
    """What int8 is calibrated on, and on standard error what its folder holds; None without `quantise`.

    Raises:
        UserError: as `Calibration.find`.
    """
    if not flags.quantise:
        return None
    from .onnx.calibration import Calibration

    how = {} if flags.calibration_images is None else {"images": flags.calibration_images}
    calibration = Calibration.find(flags.calibration, class_names, **how)
    print(*calibration.found.in_words(), sep="\n", file=sys.stderr)
    return calibration
