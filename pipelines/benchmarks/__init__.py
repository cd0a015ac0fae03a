"""Timing and peak memory, of our code and of other software."""
