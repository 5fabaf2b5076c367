# SPDX-License-Identifier: Apache-2.0
"""Building blocks: the one owner of every `nn.*` signature that is about to change."""
