"""Training metrics collected without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pipelines.training.distributed import mean_over_ranks


class RunningMeans:
    """Running means of named metrics since the last line of the log.

    `add` only keeps references; `fold` reads all of them at once, so that a GPU is waited for once
    per reading. The sums are Python floats added in the order of the steps: the means do not depend
    on when values were folded, saved and resumed. `sums` and `counts` are of the folded values, by
    name.
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self._pending: dict[str, list[Tensor]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Adds one value () per name; the tensors must not be written to afterwards."""
        for name, value in metrics.items():
            self._pending.setdefault(name, []).append(value.detach())

    def fold(self) -> None:
        """Adds the pending values to the sums, averaged over all processes."""
        if not self._pending:
            return
        stacked = torch.cat([torch.stack(values).float() for values in self._pending.values()])
        folded = mean_over_ranks(stacked).tolist()
        start = 0
        for name, values in self._pending.items():
            for value in folded[start : start + len(values)]:
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + len(values)
            start += len(values)
        self._pending.clear()

    def take_means(self) -> dict[str, float]:
        """Returns the mean of each metric since the last call and starts anew."""
        self.fold()
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means
