"""A run's codebook: measured, plotted and diagnosed, in one directory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from pipelines.cli.echo import say
from pipelines.codebook.diagnosis import diagnose
from pipelines.codebook.plots import save_plots
from pipelines.codebook.statistics import measure_codebook
from pipelines.codebook.table import table
from pipelines.data.location import DataLocation
from pipelines.data.outputs import refuse_in_data
from pipelines.files.atomic import atomic_path, refuse_existing, refuse_unwritable
from pipelines.files.records import encode_record
from pipelines.runs.batches import image_batches
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device
from stage1_vqvae.model import VQVAE

FORMAT_VERSION = 3
RECORD = "codebook.json"


def inspect_codebook(
    directory: RunDirectory,
    split: str,
    *,
    location: DataLocation,
    out: Path | None,
    device_name: str,
) -> None:
    """Measures the codebook of a run, and writes and prints statistics, plots and suggestions.

    Args:
        directory: Run with a trained VQ-VAE.
        split: train, validation or test.
        location: Where the run's images are now.
        out: New directory; None renews `codebook` in the run directory.
        device_name: As `choose_device`.
    """
    refuse_in_data(out, location.of(directory.config().data))
    target = out or directory.path / "codebook"
    check_output(target, renew=out is None)
    owner = directory.owned("measured", take_turns=True) if out is None else nullcontext()
    with owner:
        device = choose_device(device_name)
        model = VQVAE.from_pretrained(directory.vqvae).to(device)
        images = load_run_splits(directory, location).by_name[split]
        statistics = measure_codebook(model, image_batches(images, device), len(images))
        findings = diagnose(statistics, model.config)
        record = {
            "split": split,
            "vqvae_sha256": model.weights_hash(),
            "quantizer": asdict(model.config.quantizer),
            "statistics": statistics.record(),
            "findings": [asdict(finding) for finding in findings],
        }
        with atomic_path(target, replace_directory=out is None) as partial:
            partial.mkdir()
            plots = save_plots(partial, model, statistics)
            (partial / RECORD).write_bytes(encode_record("codebook", FORMAT_VERSION, record))
    say(f"codebook of {directory.path} over {len(images):,} images of the {split} split")
    say(table(statistics))
    for finding in findings:
        say(f"\n{finding}")
    say(f"\nwrote {len(plots)} plots and {RECORD} to {target}")


def check_output(out: Path, *, renew: bool) -> None:
    """Refuses early, before any work, to write over what is not this command's.

    Raises:
        FileExistsError: `out` exists, and is not to be renewed or something else.
    """
    if not renew:
        refuse_existing(out)
    elif out.exists() and not (out / RECORD).is_file():
        raise FileExistsError(
            f"{out} is for this command's output, but it holds something else: move that away or "
            "choose another directory with --out"
        )
    refuse_unwritable(out)
