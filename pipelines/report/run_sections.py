"""Summary, settings, learning curves, codebook and times of a run, as HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipelines.report.curves import Mark, Series, curve_chart
from pipelines.report.formatting import (
    format_duration,
    format_number,
    format_size,
    format_with_std,
    join_unit,
    typeset,
)
from pipelines.report.markup import element, pairs, paragraph, section, table, text
from pipelines.report.run_record import Phase, RunRecord, classes_of, describe_grids
from pipelines.runs.models import num_parameters
from pipelines.runs.overfitting import Fit, verdict
from pipelines.runs.prior_augmentation import also_seen
from pipelines.training.config import TrainingConfig
from stage1_vqvae.quantizers.usage import entropy_bits

TITLES = {"vqvae": "Stage one: VQ-VAE", "prior": "Stage two: prior"}
_CHANNELS = {1: "gray", 3: "colour"}
# Metrics of the evaluation at the head of the page.
_HEADLINES = ("fd_classifier", "fid", "classification_accuracy")
# Curves of each stage: title, metric, whether the y axis is logarithmic.
_CURVES = {
    "vqvae": (
        ("Loss", "loss", True),
        ("PSNR, dB", "psnr", False),
        ("Perplexity of the codes", "perplexity", False),
        ("Learning rate", "learning_rate", False),
    ),
    "prior": (
        ("Bits per code", "bits_per_code", False),
        ("Learning rate", "learning_rate", False),
    ),
}


def lead(record: RunRecord) -> str:
    """Returns the sentence below the title."""
    channels, height, width = record.data.image_shape
    tone = _CHANNELS.get(channels, f"{channels} channels")
    return (
        f"{record.data.num_images.train:,} images of {record.source}, "
        f"{format_size(height, width)} in {tone}, {classes_of(record)}: a VQ-VAE turns them into "
        f"code grids, a {record.config.prior.kind} learns their distribution and samples new grids."
    )


def summary(record: RunRecord) -> str:
    """Returns the most important metrics as tiles."""
    vqvae, prior = record.phases["vqvae"].test, record.phases["prior"].test
    evaluation = record.evaluation
    tiles = [_warning_tile(warning) for warning in evaluation.warnings] if evaluation else []
    if "psnr" in vqvae:
        note = f"mean error {format_number(vqvae['l1'], 3)} of 255" if "l1" in vqvae else ""
        tiles.append(_tile("Test PSNR", format_number(vqvae["psnr"]), "dB", note))
    if "bits_per_code" in prior:
        order_0 = prior.get("order_0_entropy")
        note = "" if order_0 is None else f"{format_number(order_0, 3)} without the prior"
        tiles.append(_tile("Bits per code", format_number(prior["bits_per_code"], 3), "", note))
    if "bits_per_image" in prior:
        pixels = record.data.image_shape[1] * record.data.image_shape[2]
        note = f"{format_number(prior['bits_per_image'] / pixels, 3)} per pixel"
        tiles.append(_tile("Bits per image", format_number(prior["bits_per_image"], 3), "", note))
    if "usage" in vqvae:
        distinct = dict.fromkeys(grid.codebook_size for grid in record.grids)
        sizes = " + ".join(f"{size:,}" for size in distinct)
        known = sizes and "perplexity" in vqvae
        note = f"perplexity {format_number(vqvae['perplexity'], 3)} of {sizes}" if known else ""
        tiles.append(_tile("Codes in use", format_number(100 * vqvae["usage"], 3) + "%", "", note))
    for name in _HEADLINES:
        metric = evaluation.find(name) if evaluation else None
        if metric is not None:
            note = ", ".join(
                f"{r.label}: {typeset(join_unit(format_number(r.value), metric.unit))}"
                for r in metric.references[:1]
            )
            measured = join_unit(format_with_std(metric.value, metric.std), metric.unit)
            value, plus_minus, std = typeset(measured).partition("\u00a0±")
            tiles.append(_tile(metric.label, value, plus_minus.strip() + std, note))
    return element("dl", *tiles, class_="tiles") if tiles else ""


def settings(record: RunRecord) -> str:
    """Returns what was trained, and the whole config below a fold."""
    config, data = record.config, record.data
    splits = ", ".join(f"{name} {count:,}" for name, count in asdict(data.num_images).items())
    channels, height, width = data.image_shape
    quantizer = config.vqvae.quantizer
    vqvae = [f"{quantizer.kind} quantizer"]
    prior: list[str] = [config.prior.kind]
    if record.vqvae is not None:
        vqvae += [
            describe_grids(record.grids),
            f"{round(record.vqvae.raw_bits_per_image, 1):g} bits per image before entropy coding",
            f"{num_parameters(record.vqvae):,} parameters",
        ]
    if record.prior is not None:
        prior += [
            f"{record.prior.num_codes:,} codes per image",
            f"{num_parameters(record.prior):,} parameters",
        ]
    if config.prior_augmentation.names:
        prior.append(also_seen(config.prior_augmentation.names))
    vqvae_training = (_training(config.vqvae_training), str(config.vqvae_augmentation))
    items = [
        ("Recipe", text(config.recipe)),
        ("Data", text(f"{record.source}, fingerprint {data.fingerprint}")),
        ("Images", text(f"{format_size(height, width, channels)}, {classes_of(record)}; {splits}")),
        ("Classes", text(", ".join(data.class_names))),
        ("Stage one", text(", ".join(vqvae))),
        ("Its training", text(", ".join(filter(None, vqvae_training)))),
        ("Stage two", text(", ".join(prior))),
        ("Its training", text(_training(config.prior_training))),
        ("Seed", text(config.seed)),
    ]
    written = text(json.dumps(_shareable(record), indent=2, ensure_ascii=False))
    whole = element("summary", "All settings") + element("pre", written, tabindex=0)
    return section("settings", "What was trained", pairs(items), element("details", whole))


def learning_curves(record: RunRecord) -> str:
    """Returns training and validation curves in the same axes, stage by stage."""
    parts = []
    for name, phase in record.phases.items():
        charts = [_chart(phase, *curve) for curve in _CURVES[name]]
        if any(charts):
            parts += [element("h3", TITLES[name]), element("div", *charts, class_="charts")]
        parts += _verdict(record, phase)
    if not parts:
        return ""
    augmentation, seen = record.config.prior_augmentation, str(record.config.vqvae_augmentation)
    augmented = f"; stage one's are of {seen}" if seen else ""
    augmented += (
        "; the prior's include augmented images, of which there are ever "
        f"{'fewer' if augmentation.last_share <= augmentation.first_share else 'more'}"
        if augmentation.names
        else ""
    )
    explained = paragraph(
        "Training metrics are means over the steps since the last point, of the current weights "
        f"(with dropout){augmented}. Validation metrics are of the averaged weights, on unseen "
        "images; the dashed curve is of as many training images, measured in the same way. "
        "A growing gap between the two is overfitting. The weights of the marked step were kept.",
        class_="note",
    )
    return section("curves", "Learning curves", explained, *parts)


def _verdict(record: RunRecord, phase: Phase) -> list[str]:
    """Returns the sentence on overfitting of a finished training, or nothing."""
    rows = {row.step: row.values for row in phase.rows if row.kind == "validation"}
    if not phase.test or phase.best_step is None:
        return []
    fit = Fit.of(phase.name, phase.best_step, rows[phase.best_step], max(rows), rows[max(rows)])
    if fit is None:
        return []
    sentence = f"Verdict: {verdict(fit, record.config)}."
    return [paragraph(text(sentence), class_="warning" if fit.overfits else "note")]


def codebook(record: RunRecord) -> str:
    """Returns how often each code is chosen, grid by grid."""
    if record.code_counts is None:
        return ""
    several = len(record.code_counts) > 1
    rows, charts = [], []
    for i, counts in enumerate(record.code_counts):
        shares = sorted((counts[counts > 0] / counts.sum()).tolist(), reverse=True)
        entropy = entropy_bits(torch.from_numpy(counts))
        name, size = f"Grid {i + 1}" if several else "Codes", len(counts)
        usage, bits = f"{100 * len(shares) / size:.1f}%", f"{entropy:.2f} of {math.log2(size):.2f}"
        rows.append((name, f"{size:,}", usage, format_number(2**entropy), bits))
        ranked = Series(label="share of a code", style="train", points=list(enumerate(shares, 1)))
        ends = [(1, 1 / size), (size, 1 / size)]
        alike = Series(label="uniform", style="reference", points=ends)
        charts.append(
            curve_chart(
                f"{name}: share of all positions" if several else "Share of all positions",
                [ranked, alike],
                x_label="code, by falling frequency",
                logarithmic=True,
                summary=f"{len(shares):,} of {size:,} codes occur; the most frequent takes "
                f"{shares[0]:.2%}.",
            )
        )
    header = ("", "Size", "In use", "Perplexity", "Entropy, bits")
    grids = table("The codes of the test split", header, rows, numbers=(1, 2, 3, 4))
    hint = paragraph(
        "Decoded codes and diagnosis: ",
        element("code", text(f"python -m pipelines.inspect_codebook {record.option}")),
        class_="note",
    )
    return section("codebook", "Codebook", element("div", *charts, class_="charts"), grids, hint)


def timings(record: RunRecord, seconds: Sequence[tuple[str, float]]) -> str:
    """Returns the wall-clock time of every phase; `seconds` are those of other phases."""
    rows = []
    for name, phase in record.phases.items():
        if not phase.rows:
            continue
        last = phase.rows[-1]
        images, time = last.images_seen, last.seconds
        rate = f"{images / time:,.0f}" if time > 0 else ""
        rows.append((TITLES[name], f"{last.step:,}", f"{images:,}", rate, format_duration(time)))
    rows += [(text(name), "", "", "", format_duration(time)) for name, time in seconds]
    if not rows:
        return ""
    header = ("Phase", "Steps", "Images", "Images/s", "Time")
    return table("Time of every phase, validations included", header, rows, numbers=(1, 2, 3, 4))


def _shareable(record: RunRecord) -> dict[str, Any]:
    """Returns all settings, without the paths of this machine."""
    config = record.config.to_dict()
    paths = {"source": record.source, "root": record.config.data.root.resolve().name}
    for start in ("vqvae_from", "prior_from"):
        config[start] = config[start] and Path(config[start]).name
    return config | {"data": config["data"] | paths}


def _warning_tile(warning: str) -> str:
    content = element("dt", "Warning") + element("dd", text(f"{warning}."))
    return element("div", content, class_="warning")


def _tile(name: str, value: str, unit: str, note: str) -> str:
    written = text(value) + (" " + element("span", text(unit), class_="unit") if unit else "")
    value = element("span", written, class_="value")
    value += element("span", text(note), class_="note") if note else ""
    return element("div", element("dt", text(name)), element("dd", value))


def _chart(phase: Phase, title: str, metric: str, logarithmic: bool) -> str:
    train, validation = phase.points("train", metric), phase.points("validation", metric)
    again = phase.points("validation", f"train_{metric}")
    series = [
        Series(label="training", style="train", points=train),
        Series(label="validation", style="validation", points=validation),
        Series(label="training images, as validation", style="reference", points=again),
    ]
    best = phase.best_step
    mark = Mark(x=best, label=f"best: step {best:,}") if validation and best is not None else None
    parts = [
        f"{label} from {format_number(points[0][1])} to {format_number(points[-1][1])}"
        for label, points in (("Training", train), ("validation", validation))
        if points
    ]
    return curve_chart(
        title if train or metric == "learning_rate" else f"{title}, validation",
        series,
        x_label="step",
        logarithmic=logarithmic,
        mark=mark,
        summary=", ".join(parts) + ".",
    )


def _training(training: TrainingConfig) -> str:
    return (
        f"{training.epochs:g} epochs in batches of {training.batch_size}, {training.optimizer}, "
        f"learning rate {training.learning_rate:g}"
    )
