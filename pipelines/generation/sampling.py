"""Samples of a run as files."""

from __future__ import annotations

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.data.location import DataLocation
from pipelines.data.outputs import refuse_in_data
from pipelines.evaluation.sections.memorisation import describe_memorisation
from pipelines.files.images import check_output, check_png, draw_grid, save_images
from pipelines.files.numbering import save_new
from pipelines.generation.labels import parse_label
from pipelines.generation.options import SampleOptions
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device
from pipelines.tuning.record import describe_settings
from stage2_prior.sampling.settings import SamplingSettings


def write_samples(options: SampleOptions) -> None:
    """Samples images and writes them to `options.out`, or to a new file in the run directory."""
    directory = RunDirectory(options.run)
    folder = directory.path / "samples"
    if options.out is None:
        check_png(None, folder)
    else:
        check_output(options.out)
    if directory.config_file.exists():
        refuse_in_data(options.out, options.data.of(directory.config().data))
    pipeline = GenerationPipeline.from_pretrained(directory.path).to(choose_device(options.device))
    label = parse_label(options.label, pipeline.class_names)
    pipeline.check(options.settings, label, seed=options.seed)
    splits = _training_data(directory, options.data) if options.nearest else None
    chosen = options.settings == pipeline.settings != SamplingSettings()
    why = " (chosen on the validation split)" if chosen else ""
    say(f"sampling with {describe_settings(options.settings)}{why}")
    images = pipeline(
        options.n,
        label,
        settings=options.settings,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    if options.out is None:
        out = save_new(None, folder, draw_grid(images.numpy()).save)
        say(f"wrote a grid of {len(images)} images to {out}")
    else:
        labels = pipeline.resolve_labels(options.n, label)
        known = None if labels is None else labels.numpy()
        say("wrote " + save_images(options.out, images.numpy(), known))
    if splits is not None:
        say(describe_memorisation(images, pipeline.vqvae, splits))


def _training_data(directory: RunDirectory, location: DataLocation) -> DataSplits:
    """Loads the images that a run was trained on, and its other splits."""
    if not directory.config_file.exists():
        raise ValueError(
            f"--nearest needs the images that the run was trained on, but {directory.path} has no "
            f"{directory.config_file.name} that names them: name a run, or leave --nearest out"
        )
    return load_run_splits(directory, location)
