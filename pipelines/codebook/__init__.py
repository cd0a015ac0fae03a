"""Diagnosis of a trained codebook: statistics, findings, suggestions, plots."""
