# SPDX-License-Identifier: Apache-2.0
"""The train step, mixed precision, EMA, checkpoints, records and the loop."""
