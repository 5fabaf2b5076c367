"""Retrieval: sets and protocols, embedding, scores, copies, and an index to search."""
