"""Exact classification metrics, reports and pictures."""
