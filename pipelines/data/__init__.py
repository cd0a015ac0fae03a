"""Image sets: `load.load_splits` reads and splits the one that a `config.DataConfig` names."""
