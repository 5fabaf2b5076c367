# SPDX-License-Identifier: Apache-2.0
"""Export, parity and inference."""
