"""Prior and decoder as one: samples and completions of images."""
