# SPDX-License-Identifier: Apache-2.0
"""Tables line up and can be printed."""

from src.common.table import table


def test_columns_are_as_wide_as_their_widest_cell():
    text = table([("top-1", "78.30 %", "of 10"), ("images", 10, "")], indent=2)
    assert text == "  top-1   78.30 %  of 10\n  images  10"


def test_a_name_that_is_no_utf8_is_printable():
    assert table([("\udcff", 1)]).encode() == b"?  1"
    assert table([]) == ""
