"""A run as one HTML page: page.py puts the sections together."""
