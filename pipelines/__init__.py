"""Commands, and the machinery that only they share: data, training, run directories."""
