"""What runs have to do with each other."""
