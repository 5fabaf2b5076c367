# SPDX-License-Identifier: Apache-2.0
"""ONNX: a network's graph as MindSpore exports it, translated operator by operator.

MindSpore's own ONNX exporter (`ms.export(file_format="ONNX")`, 2.10) is not used: it writes opset 11 of 2020,
refuses a free batch size, and fails for BiT and Bi-Real Net ("Cast value from type Int64Imm to ValueTuple
failed"). Its MINDIR exporter takes every network, and what it writes is one flat list of operators.
`trace.py` reads that list, `operators.py` has one small function an operator, and `translate.py` walks over
it. So no network is described a second time, and what the table lacks is refused by name.
"""

import os

# onnxruntime reads it when it is imported; otherwise it makes up a device ID, keeps it and sends reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
