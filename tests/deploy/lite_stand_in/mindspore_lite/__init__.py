# SPDX-License-Identifier: Apache-2.0
"""A stand-in for MindSpore Lite's Python package that checks as it does and runs files by MindSpore.

Only what a program needs to run a .mindir: Context, Model, ModelType, Tensor, DataType. The memory of an
answer is used again by the next call, as a device's may be. Ascend cards are those of STAND_IN_CARDS.
"""

import os
from enum import Enum

import numpy as np


class ModelType(Enum):
    MINDIR = 0
    MINDIR_LITE = 4


class DataType(Enum):
    UINT8 = 37
    FLOAT32 = 43


class _Device:
    def __init__(self):
        self._device_id = 0

    @property
    def device_id(self):
        return self._device_id

    @device_id.setter
    def device_id(self, value):
        if not isinstance(value, int):
            raise TypeError(f"device_id must be int, but got {type(value)}.")
        if value < 0:
            raise ValueError("device_id must be a non-negative int.")
        self._device_id = value


class Context:
    def __init__(self):
        self.ascend = _Device()
        self._target = ["cpu"]

    @property
    def target(self):
        return self._target

    @target.setter
    def target(self, target):
        if not isinstance(target, list) or not all(isinstance(one, str) for one in target):
            raise TypeError("target must be a list of str.")
        if not {one.lower() for one in target} <= {"cpu", "gpu", "ascend"}:
            raise ValueError(f"target elements must be in ['cpu', 'gpu', 'ascend'], but got {target}.")
        self._target = target


class Tensor:
    def __init__(self, shape, dtype):
        self.shape, self.dtype = list(shape), dtype
        self._data = np.zeros(shape, dtype.name.lower())

    @property
    def data_size(self):
        return self._data.nbytes

    def set_data_from_numpy(self, numpy_obj):
        if not isinstance(numpy_obj, np.ndarray):
            raise TypeError(f"numpy_obj must be numpy.ndarray, but got {type(numpy_obj)}.")
        if numpy_obj.dtype != self._data.dtype:
            raise RuntimeError(f"data type not equal! Numpy: {numpy_obj.dtype}, Tensor: {self.dtype}")
        if numpy_obj.nbytes != self.data_size:
            raise RuntimeError(f"data size not equal! Numpy: {numpy_obj.nbytes}, Tensor: {self.data_size}")
        self._data[:] = numpy_obj.reshape(self.shape)

    def get_data_to_numpy(self):
        return self._data


class Model:
    def build_from_file(self, model_path, model_type, context=None, config_path="", config_dict=None):
        import mindspore as ms
        from mindspore.train.mind_ir_pb2 import ModelProto

        for name, value, kind in (
            ("model_path", model_path, str),
            ("model_type", model_type, ModelType),
            ("context", context, Context),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be {kind.__name__}, but got {type(value)}.")
        if not os.path.exists(model_path):
            raise RuntimeError("build_from_file failed, model_path does not exist!")
        if "ascend" in context.target:
            cards = os.environ.get("STAND_IN_CARDS", "").split(",")
            if str(context.ascend.device_id) not in cards:
                raise RuntimeError("build_from_file failed! Error is Common error code.\nmore")
        proto = ModelProto()
        with open(model_path, "rb") as file:
            proto.ParseFromString(file.read())
        self._graph = ms.nn.GraphCell(ms.load(model_path))
        types = {1: DataType.FLOAT32, 2: DataType.UINT8}
        tensors = [value.tensor[0] for value in (*proto.graph.input, *proto.graph.output)]
        self._input, self._output = (Tensor(tuple(t.dims), types[t.data_type]) for t in tensors)

    def get_inputs(self):
        return [self._input]

    def predict(self, inputs, outputs=None):
        import mindspore as ms

        if not isinstance(inputs, list) or not all(isinstance(one, Tensor) for one in inputs):
            raise TypeError("inputs must be a list of Tensor.")
        answer = self._graph(ms.Tensor(inputs[0].get_data_to_numpy()))
        self._output.set_data_from_numpy(answer.asnumpy())
        return [self._output]
