"""Sampling code grids: settings, order, random numbers, the loop and its checks."""
