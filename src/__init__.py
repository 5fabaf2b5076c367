"""Quartet: four image models on MindSpore with one training engine."""
