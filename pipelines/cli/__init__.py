"""Command lines and what commands print."""
