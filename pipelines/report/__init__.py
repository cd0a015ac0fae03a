"""A run as one HTML page: page.py is the whole; markup, curves, pictures, images, sections."""
