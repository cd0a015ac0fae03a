"""Evaluation of finished runs: metrics, their records, and comparisons."""
