"""Image sets: `config.DataConfig` says which, `load.load_splits` reads and splits them."""
