# SPDX-License-Identifier: Apache-2.0
"""Starts a door in several processes, one a card, watches them, and starts them again after a failure."""
