"""Settings of a training run. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.cli.options import Device, check_seed
from pipelines.data.config import DataConfig
from pipelines.files.records import to_json
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.runs.vqvae_augmentation import VQVAEAugmentationConfig
from pipelines.training.config import FIELDS_WITHOUT_EFFECT, PrecisionChoice, TrainingConfig
from pipelines.training.launch import num_processes
from stage1_vqvae.config import VQVAEConfig
from stage2_prior.config import PriorConfig, TransformerConfig

RecipeName = Literal[
    "fashion-mnist-mini",
    "fashion-mnist",
    "mnist",
    "cifar10",
    "folder-64",
    "folder-128",
    "folder-256",
    "smoke",
]
_WITHOUT_EFFECT = {
    # Where the images are is not what they are: that is their fingerprint.
    "data": ("source", "root", "download", "max_memory_mib", "max_image_megapixels"),
    "vqvae_training": FIELDS_WITHOUT_EFFECT,
    "prior_training": FIELDS_WITHOUT_EFFECT,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training run: data, both stages, seed."""

    recipe: RecipeName = "fashion-mnist-mini"
    """The settings to start from; every other option changes one of them."""
    seed: int = 0
    """Seed of initial weights, data order and dropout, in [0, 2^63). Not of the data's splits,
    which never change."""
    device: Device = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    """Images."""
    vqvae: VQVAEConfig = field(default_factory=VQVAEConfig)
    """Stage one: the VQ-VAE."""
    vqvae_training: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of stage one."""
    vqvae_augmentation: VQVAEAugmentationConfig = field(default_factory=VQVAEAugmentationConfig)
    """Random crops and mirrored images that stage one trains on."""
    prior_augmentation: PriorAugmentationConfig = field(default_factory=PriorAugmentationConfig)
    """Other views of the training images that the prior learns from."""
    prior: PriorConfig = field(default_factory=TransformerConfig)
    """Stage two: the prior over the codes."""
    prior_training: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of stage two."""
    vqvae_from: Path | None = None
    """Run whose VQ-VAE stage one starts from, with a new schedule; model and image shape must be
    the same. None starts from random weights."""
    prior_from: Path | None = None
    """Run whose prior stage two starts from, with a new schedule; model, code grids and classes
    must be the same. None starts from random weights."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def check_processes(self, left_open: Collection[str] = ()) -> None:
        """Makes sure that the processes can share the batches of both stages.

        Those that are `left_open` will be chosen so.
        """
        for option, training in (
            ("--vqvae-training.batch-size", self.vqvae_training),
            ("--prior-training.batch-size", self.prior_training),
        ):
            if option not in left_open:
                training.check_processes(num_processes(), option)

    def with_precision(
        self, choice: PrecisionChoice | None, *, instead_of: str | None = None
    ) -> RunConfig:
        """Replaces the number format of both stages, or of those whose format is `instead_of`.

        None as `choice` changes nothing.
        """

        def changed(training: TrainingConfig) -> TrainingConfig:
            if choice is None or instead_of not in (None, training.precision):
                return training
            return replace(training, precision=choice)

        vqvae_training, prior_training = map(changed, (self.vqvae_training, self.prior_training))
        return replace(self, vqvae_training=vqvae_training, prior_training=prior_training)

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as JSON values, which `convert` turns back into it."""
        return to_json(self)


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of `RunConfig.to_dict()`, or of a part, that decide the result.

    Where a run is computed, where its images are and how often it is saved may change on a resume.
    """
    return {
        name: {n: v for n, v in value.items() if n not in _WITHOUT_EFFECT[name]}
        if name in _WITHOUT_EFFECT
        else value
        for name, value in settings.items()
        if name != "device"
    }


def settings_of_all(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of `RunConfig.to_dict()` that must be equal in all processes of a run.

    Their devices may differ, and where each finds the images.
    """
    return {**settings, "device": None, "data": deciding(settings)["data"]}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lists changes between two nested dictionaries, as `--vqvae.width was 96, is now 128`."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            option = f"{prefix}{name}".replace("_", "-")
            found.append(f"--{option} was {before}, is now {after}")
    return found
