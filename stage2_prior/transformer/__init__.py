"""A decoder-only transformer over code grids, and its cached decoding."""
