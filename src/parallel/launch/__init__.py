"""Starts a door in several processes, one a card, watches them, and starts them again after a failure."""
