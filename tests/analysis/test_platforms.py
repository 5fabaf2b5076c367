# SPDX-License-Identifier: Apache-2.0
"""What MindSpore's docstrings say of operators, and that the tables of the others hold."""

from pathlib import Path

import mindspore as ms
import pytest
from mindspore import ops

from src.analysis.platforms import GRADIENT_OF, ONE_FORM_OF, documentation

ALL = ("Ascend", "GPU", "CPU")
PLUGINS = Path(ms.__file__).parent / "lib" / "plugin"


@pytest.mark.parametrize(
    ("primitive", "platforms", "where"),
    [
        ("Conv2D", ALL, "mindspore.ops.operations.nn_ops.Conv2D"),
        ("AllGather", ("Ascend", "GPU"), "mindspore.ops.operations.comm_ops.AllGather"),
        ("PowTensorScalar", ("Ascend",), "mindspore.ops.auto_generate.gen_ops_prim.PowTensorScalar"),
        ("Fmax", ("CPU",), "mindspore.ops.operations.math_ops.Fmax"),
        ("AdaptiveMaxPool3D", ("GPU", "CPU"), "mindspore.ops.operations.nn_ops.AdaptiveMaxPool3D"),
        ("Abs", ALL, "mindspore.ops.abs"),  # the class refers to the function
        ("SumExt", ALL, "one form of mindspore.mint.sum"),
        ("Conv2DBackpropInput", ALL, "gradient of Conv2D, mindspore.ops.operations.nn_ops.Conv2D"),
        ("NoSuchPrimitive", (), ""),
    ],
)
def test_platforms_and_who_says_so(primitive, platforms, where):
    found = documentation(primitive)
    assert (found.platforms, found.where) == (platforms, where)


@pytest.mark.parametrize("primitive", sorted(ONE_FORM_OF | GRADIENT_OF))
def test_the_tables_lead_to_documentation(primitive):
    assert documentation(primitive).platforms


def test_a_primitive_with_two_classes_runs_where_both_do(monkeypatch):
    class AddN(ops.Primitive):
        """Supported Platforms:
        ``GPU`` ``CPU``
        """

    monkeypatch.setattr(ops.operations.nn_ops, "AddN", AddN, raising=False)
    assert documentation.__wrapped__("AddN").platforms == ("GPU", "CPU")


@pytest.mark.skipif(not PLUGINS.is_dir(), reason="this wheel of MindSpore has no plug-in for Ascend")
def test_ascend_has_what_the_tables_vouch_for():
    """The names stand in MindSpore's libraries for Ascend, which documentation does not need to be true."""
    files = [*PLUGINS.glob("libmindspore*ascend*"), *PLUGINS.glob("ascend/libmindspore_ascend*")]
    libraries = b"".join(path.read_bytes() for path in files)
    assert [name for name in (ONE_FORM_OF | GRADIENT_OF) if name.encode() not in libraries] == []
