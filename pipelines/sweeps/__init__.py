"""Comparison of quantizers and codebook sizes: one run each, one table."""
