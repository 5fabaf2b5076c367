# SPDX-License-Identifier: Apache-2.0
"""Making a data set on disk: python -m src.data.prepare."""
