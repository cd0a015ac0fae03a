"""Quantizers: z_e to codes and back, one file per kind behind the base class of `base`.

base.py                       Quantizer
codebook.py                   K vectors, the code with the highest score is chosen
  simvq.py gumbel.py
  restarting_codebook.py      ... of vectors near z_e: k-means, usage, restarts
    stochastic.py index_backprop.py
    learned_codebook.py       ... that follow z_e, with restarts or anchors
      ema.py gradient.py
finite_scalar.py lookup_free.py
composite.py                  several grids, made of the above
  residual.py product.py

config.py codebook_config.py  settings, free of torch; build.py makes a quantizer from them
nearest_codebook.py           the VQ-VAE paper's equation 3
search.py usage.py estimators.py entropy.py levels.py kmeans.py anchors.py
                              pure functions
"""
