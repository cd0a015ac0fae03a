"""Metrics: pure functions over images and features, and the networks that give features."""
