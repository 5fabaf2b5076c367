"""A network as an ONNX model: the same answers at any batch size, and a graph without waste."""

from collections import Counter

import mindspore as ms
import numpy as np
import onnx
import onnxruntime

from src.data.preparation import Preparation
from src.deploy.card import ModelCard
from src.deploy.onnx.translate import to_onnx
from src.layers.device import use_plain_operators
from src.zoo import create_network

SMALL = {"block_units": (1, 1, 2, 1), "widths": (8, 8, 16, 16)}


def filled(name, **arguments):
    """A network of 5 classes in which no normalisation is the identity."""
    network = create_network(name, num_classes=5, **arguments).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        values = rng.normal(size=parameter.shape) * 0.3
        values = np.abs(values) + 0.5 if parameter.name.endswith("variance") else values
        if parameter.ndim < 2:
            parameter.set_data(ms.Tensor(values.astype(np.float32)))
    return network


def card_of(side, input_type="float32"):
    preparation = Preparation(side, (125.0, 123.0, 114.0), (63.0, 62.0, 66.5))
    return ModelCard(model="m", class_names=tuple("abcde"), preparation=preparation, input_type=input_type)


def test_translates_a_network():
    network = filled("birealnet18", **SMALL)
    images = np.random.default_rng(1).normal(size=(8, 3, 64, 64)).astype(np.float32)
    logits, embedding = (f(ms.Tensor(images)).asnumpy() for f in (network, network.embed))
    network.fold()
    use_plain_operators(network)
    model = to_onnx(network, card_of(64))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 3, 8):
        found = session.run(["logits", "embedding"], {"images": images[:count]})
        np.testing.assert_allclose(found[0], logits[:count], atol=1e-5 * np.abs(logits).max())
        np.testing.assert_allclose(found[1], embedding[:count], atol=1e-5 * np.abs(embedding).max())
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == 9 and operators["Where"] == 5 and not operators["Slice"]
