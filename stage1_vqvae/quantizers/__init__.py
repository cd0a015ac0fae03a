"""Quantizers: z_e to codes and back, one file per kind behind the contract of `base`.

base.py                     the contract
codebook.py                 K vectors, the code with the best score is chosen
  nearest_codebook.py       ... the nearest, with an estimated gradient
    learned_codebook.py     ... from vectors that follow z_e: k-means, restarts, anchors
      ema.py gradient.py
    simvq.py
  soft_codebook.py          ... from vectors near z_e, softly assigned: k-means, restarts
    stochastic.py index_backprop.py
  gumbel.py
finite_scalar.py lookup_free.py
residual.py product.py      several grids, made of the above
pure functions: search.py usage.py estimators.py entropy.py levels.py kmeans.py restarts.py
                anchors.py annealing.py
"""
