# SPDX-License-Identifier: Apache-2.0
"""Several cards: what ranks tell each other, gradients in buckets, rank tables, and the launcher."""
