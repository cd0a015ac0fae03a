"""Builds the saved priors in golden/ and what they gave when they were saved.

    python tests/stage2_prior/make_golden.py

Only run it again for a format that cannot read the old one: what is saved must stay readable. The
weights are random, since a golden prior guards names, shapes and arithmetic, not quality.
"""

import json
from pathlib import Path

import torch
from tiny_priors import KINDS, as_grids, make_prior, random_labels, random_sequence

from stage2_prior import GridSpec, SamplingSettings

GOLDEN = Path(__file__).parent / "golden"
GRIDS = (GridSpec(2, 3, 5), GridSpec(2, 3, 4))
NUM_CLASSES = 3
SETTINGS = SamplingSettings(temperature=0.9, top_k=4, top_p=0.95, guidance_scale=1.5)


def main() -> None:
    """Writes one prior of each kind, and expected.json."""
    sequence, labels = random_sequence(GRIDS, 4, seed=3), random_labels(NUM_CLASSES, 4, seed=3)
    codes = as_grids(sequence, GRIDS)
    expected = {
        "codes": [grid.tolist() for grid in codes],
        "labels": labels.tolist(),
        "log_prob": {},
        "log_prob_without_labels": {},
        "samples": {},
        "samples_with_settings": {},
    }
    for kind in KINDS:
        prior = make_prior(kind, GRIDS, NUM_CLASSES)
        prior.save_pretrained(GOLDEN / kind)
        expected["log_prob"][kind] = prior.log_prob(codes, labels).tolist()
        expected["log_prob_without_labels"][kind] = prior.log_prob(codes).tolist()
        plain = prior.sample(4, labels, seed=11, first_index=5)
        guided = prior.sample(4, labels, SETTINGS, seed=11, first_index=5)
        expected["samples"][kind] = [grid.tolist() for grid in plain]
        expected["samples_with_settings"][kind] = [grid.tolist() for grid in guided]
    (GOLDEN / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    main()
