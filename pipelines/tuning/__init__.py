"""Search for sampling settings on the validation split."""
