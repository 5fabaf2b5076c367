# SPDX-License-Identifier: Apache-2.0
"""The flags of infer.py."""

import argparse

from ..common.cli import add_weights_flags

HELP = {
    "model_path": "an export's folder, a .mindir in it, an .onnx or .packed, a run's folder, or any weights",
    "backend": "what runs a .mindir: mindspore, lite, or auto: lite where it is installed (default auto)",
    "device_target": "auto, Ascend, GPU or CPU (default auto)",
    "max_image_pixels": "skip images with more pixels, which could fill the memory (default 178,956,970)",
    "labels": 'true classes: a file of lines "IMAGE,CLASS"; folders: their names; auto: these, if they fit',
    "workers": "threads that read images; 0: one for each core that may be used, at most 8 (default 0)",
    "batch_size": "images in a batch; a .mindir takes one of its own sizes (default: its largest, else 32)",
    "threads": "computing threads of .onnx and .packed; 0: one for each core that may be used (default 0)",
    "output": "file to write, with what --json prints; an older file is replaced",
}


def add_infer_flags(flags: argparse.ArgumentParser) -> None:
    """Adds them all."""
    flags.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE_OR_DIR",
        help="images, folders of them, or a folder of CIFAR's binary files",
    )
    flags.add_argument("--model_path", required=True, help=HELP["model_path"])
    flags.add_argument("--backend", default="auto", help=HELP["backend"])
    flags.add_argument("--device_target", default="auto", help=HELP["device_target"])
    flags.add_argument("--batch_size", type=int, help=HELP["batch_size"])
    flags.add_argument("--threads", type=int, help=HELP["threads"])
    flags.add_argument("--workers", type=int, default=0, help=HELP["workers"])
    flags.add_argument("--max_image_pixels", type=int, help=HELP["max_image_pixels"])
    flags.add_argument("--labels", help=HELP["labels"])
    flags.add_argument("--top", type=int, default=5, help="classes to show for each image (default 5)")
    flags.add_argument("--summary", action="store_true", help="print accuracy and speed only, not each image")
    flags.add_argument("--json", action="store_true", help="print one JSON object")
    flags.add_argument("--output", metavar="FILE", help=HELP["output"])
    add_weights_flags(flags)
