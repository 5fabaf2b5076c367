# SPDX-License-Identifier: Apache-2.0
"""Tries MindSpore in a process of its own: python -m src.doctor.probe [auto|Ascend|GPU|CPU]

Its answer is one line of JSON, an object. Whatever goes wrong stays in this process.
"""

import json
import time

from ..common.cli import run

# A convolution as in ResNet9's first stages: pictures, channels, side.
PICTURES, CHANNELS, SIDE = 8, 64, 32
TRIES = 3
EXPECTED = 9.0 * CHANNELS  # of ones in each tap of 3x3, away from the border


def convolve(target: str) -> dict[str, float | str]:
    """A convolution on the device: its rate, the first call's seconds, and whether its numbers are right.

    Raises:
        UserError: there is no such device, or the numbers are wrong.
    """
    start = time.perf_counter()
    import mindspore as ms
    import numpy as np

    from ..common.errors import UserError
    from ..layers.conv import conv2d
    from ..model_utils.device_adapter import set_up_device

    device = set_up_device(target)
    network = conv2d(in_channels=CHANNELS, out_channels=CHANNELS, kernel_size=3)
    network.weight.set_data(ms.Tensor(np.ones(network.weight.shape, np.float32)))
    pictures = ms.Tensor(np.ones((PICTURES, CHANNELS, SIDE, SIDE), np.float32))
    result = network(pictures).asnumpy()
    if not np.allclose(result[:, :, 1:-1, 1:-1], EXPECTED, rtol=1e-3):
        raise UserError(f"{device.target}: a convolution gives wrong numbers")
    started = time.perf_counter() - start
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        network(pictures).asnumpy()
        seconds.append(time.perf_counter() - start)
    operations = 2 * PICTURES * SIDE**2 * CHANNELS**2 * 9
    return {"target": device.target, "start_s": started, "gflops": operations / min(seconds) / 1e9}


def main(arguments):
    print(json.dumps(convolve(*arguments[:1] or ("auto",))))


if __name__ == "__main__":
    run(main)
