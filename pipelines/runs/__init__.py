"""A run: its settings, its directory, and the trainings and codes in it."""
