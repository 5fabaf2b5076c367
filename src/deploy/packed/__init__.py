# SPDX-License-Identifier: Apache-2.0
"""Networks of 1-bit convolutions in one file, and what runs it; MindSpore is not needed."""

from .model import PackedModel

__all__ = ["PackedModel"]
