"""A gated PixelCNN over code grids, and its cached decoding."""
