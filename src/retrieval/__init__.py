# SPDX-License-Identifier: Apache-2.0
"""Retrieval: sets and protocols, embedding, scores, copies, and an index to search."""
