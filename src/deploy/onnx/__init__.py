"""ONNX: a network's graph as MindSpore exports it, translated operator by operator.

MindSpore's own ONNX exporter (`ms.export(file_format="ONNX")`, 2.10) is not used: it has no GroupNorm, no
maximum with a constant (the lower limit of generalised-mean pooling), and leaves the batch size fixed. Its
MINDIR exporter takes every network, and what it writes is one flat list of operators. `trace.py` reads that
list, `operators.py` has one small function an operator, and `translate.py` walks over it. So no network is
described a second time, and what the table lacks is refused by name.
"""
