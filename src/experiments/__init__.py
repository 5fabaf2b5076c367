# SPDX-License-Identifier: Apache-2.0
"""Several runs, or a short one, that answer a question: ablations and the range test of the learning rate."""
