# SPDX-License-Identifier: Apache-2.0
"""A small network that has an embedding, exported once to an ONNX file."""

import mindspore as ms
import numpy as np
import pytest

from src.deploy.export import export_model
from tests.deploy.conftest import SmallNet


class Embedding(SmallNet):
    """SmallNet whose features have a name."""

    def embed(self, images: ms.Tensor) -> ms.Tensor:
        features = self.pool(self.norm(self.conv(images)))
        return features.mean((2, 3))

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        return self.head(self.embed(images))


@pytest.fixture(scope="session", params=["float32", "uint8"])
def export(card, tmp_path_factory, request):
    """(network, folder, report) of an export that was compared on seven real images."""
    folder = tmp_path_factory.mktemp("onnx") / "my net"
    network = Embedding(4, 0)
    images = np.random.default_rng(1).integers(0, 256, (7, 16, 16, 3)).astype(np.uint8)
    report = export_model(
        network,
        folder,
        card=card.model_copy(update={"input_type": request.param}),
        file_format="onnx",
        real_images=np.stack([card.preparation.normalise(image) for image in images]),
    )
    return network, folder, report
