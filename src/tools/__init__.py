# SPDX-License-Identifier: Apache-2.0
"""Commands beside the doors: python -m src.tools.NAME."""
