"""Generation of images by prior and decoder: sampling, inpainting, reconstruction."""
