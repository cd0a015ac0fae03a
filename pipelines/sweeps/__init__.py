"""Sweeps: the same training with several quantizers and codebook sizes."""
