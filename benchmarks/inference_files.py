# SPDX-License-Identifier: Apache-2.0
"""The files that benchmarks.inference compares: a network with initial weights in every format.

    python -m benchmarks.inference_files birealnet18 FOLDER

Prints, as one line of JSON, what each backend opens, and the bytes of it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import inference_layers as layers
from benchmarks.record import end_with, parser

TWIN = "resnet18"  # the float twin of birealnet18: multigrain_resnet18 with the pooling of a ResNet
MODELS = {
    "birealnet18": 224, TWIN: 224, "resnet9": 32, "multigrain_resnet18": 224, "multigrain_resnet50": 224,
    "bit_r50x1": 224,
}  # fmt: skip
SHAPES = {
    **{model: (3, side, side) for model, side in MODELS.items()},
    **{chain: layers.shape_of(chain) for chain in layers.CHAINS},
}
GROUPS = (("birealnet18", TWIN), *((name,) for name in SHAPES if name not in ("birealnet18", TWIN)))
BATCHES = (1, 32)
AT_BATCH_1 = ("MINDIR unfolded", "MINDIR without norms")  # what folding gains is asked there alone
PICTURES = 100  # that int8 is calibrated on and compared with


def network_of(name: str) -> Any:
    """A new network, or chain of convolutions, of that name."""
    from src.zoo import create_network

    if name in layers.CHAINS:
        return layers.network_of(name)
    keys = {"pooling_exponent": 1.0} if name == TWIN else {}
    model = "multigrain_resnet18" if name == TWIN else name
    return create_network(model, num_classes=len(class_names(name)), **keys)


def without_norms(network: Any) -> Any:
    """The network without batch norms, and without the biases that they fold into: the most to be gained."""
    from mindspore import nn

    network.fold()
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            cell.has_bias = False
    return network


def class_names(model: str) -> tuple[str, ...]:
    return tuple(f"class{number}" for number in range(10 if MODELS[model] == 32 else 1000))


def write_files(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Exports to every format; returns what each backend opens, "model", and its "bytes" or None."""
    from src.data.preparation import Preparation
    from src.deploy.card import ModelCard
    from src.deploy.export import export_model
    from src.deploy.onnx.calibration import Calibration

    found = {"MindSpore": {"model": name, "bytes": None}}
    if name in layers.CHAINS:
        return found | dict.fromkeys(("packed", "OpenVINO binary"), found["MindSpore"])
    how = Preparation(MODELS[name], (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    card = ModelCard(model=name, class_names=class_names(name), preparation=how)

    def export(*backends: str, network: Any = None, **keys: Any) -> None:
        report = export_model(network or network_of(name), folder / backends[0], card=card, **keys)
        file = report["files"][0]
        model = file["path"].replace("model_b1.", "model_b{batch}.")
        found.update({backend: {"model": model, "bytes": file["bytes"]} for backend in backends})

    export("MINDIR", batch_sizes=BATCHES)
    if name.startswith(("bit", "multigrain")):
        export("MINDIR unfolded", fold=False)
    if name.startswith("multigrain"):
        export("MINDIR without norms", network=without_norms(network_of(name)))
    export("onnxruntime float32", "OpenVINO float32", "OpenVINO bfloat16", file_format="ONNX")
    if name == "birealnet18":
        export("packed", "OpenVINO binary", file_format="PACKED")
    else:
        pictures = Calibration.find(noise(folder, how.image_size), card.class_names, images=PICTURES // 2)
        how_int8 = {"calibration": pictures, "accept_difference": True}
        export("onnxruntime int8", "OpenVINO int8", file_format="ONNX", **how_int8)
    return found


def noise(folder: Path, side: int) -> Path:
    """A new folder of pictures: what int8 costs in accuracy is not asked here."""
    rng, pictures = np.random.default_rng(0), folder / "pictures"
    pictures.mkdir(parents=True)
    for number in range(PICTURES):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(pictures / f"{number}.png")
    return pictures


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("name", choices=SHAPES, metavar="NAME")
    flags.add_argument("folder", type=Path)
    own = flags.parse_args()

    from src.model_utils.device_adapter import set_up_device

    if own.name not in layers.CHAINS:
        set_up_device("CPU")
    print(json.dumps(write_files(own.name, own.folder)))
    return 0


if __name__ == "__main__":
    end_with(main)
