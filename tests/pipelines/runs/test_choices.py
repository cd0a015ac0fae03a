"""Choices in a run's settings, and how they are shown."""

import pytest

from pipelines.runs.choices import (
    Choice,
    Facts,
    choose,
    describe_choices,
    has_option,
    taken_from,
    value_of,
    with_values,
)
from pipelines.runs.kinds import is_given, recipe_defaults
from pipelines.runs.recipes import RECIPES

BASE = RECIPES["folder-64"]
FACTS = Facts(num_train=1, num_validation=1, image_shape=(3, 64, 64))


def test_values_of_one_part_change_at_once():
    # One after the other, 6 heads would not divide the width of 256.
    run = with_values(BASE, {"--prior.num-heads": 6, "--prior.width": 36, "--vqvae.width": 3})
    assert (run.prior.num_heads, run.prior.width, run.vqvae.width) == (6, 36, 3)
    changed = ("--prior.num-heads", "--prior.width", "--vqvae.width")
    assert with_values(run, taken_from(BASE, run, changed)) == BASE


def test_options_belong_to_the_kinds_of_parts():
    residual = recipe_defaults(["--recipe=folder-64", "--vqvae.quantizer.kind=residual"])
    option = "--vqvae.quantizer.codebook-size"
    assert (has_option(BASE, option), has_option(residual, option)) == (True, False)
    assert taken_from(BASE, residual, [option]) == taken_from(residual, BASE, [option]) == {}


def test_later_rules_see_what_earlier_ones_and_the_user_chose():
    def first(_facts, _config):
        yield Choice(option="--vqvae.width", value=10, reason="first")
        yield Choice(option="--vqvae.fine-width", value=5, reason="first")

    def second(_facts, config):
        sum_of_both = config.vqvae.width + config.vqvae.fine_width
        yield Choice(option="--prior.num-layers", value=sum_of_both, reason="second")

    left_open = ["--vqvae.width", "--prior.num-layers"]
    run, choices = choose((first, second), FACTS, BASE, left_open)
    assert [choice.option for choice in choices] == left_open
    assert value_of(run, "--prior.num-layers") == 10 + BASE.vqvae.fine_width


def test_choices_are_shown_below_each_other_with_their_reasons():
    shown = describe_choices(
        [
            Choice(option="--vqvae.downsampling", value=8, reason="64x64 images give 8x8 codes"),
            Choice(option="--prior.dropout", value=0.25, reason="few images"),
        ]
    )
    assert shown.splitlines() == [
        "chosen: vqvae.downsampling 8    (64x64 images give 8x8 codes)",
        "chosen: prior.dropout      0.25 (few images)",
    ]


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        (["--a.batch-size", "3"], True),
        (["--a.batch_size=3"], True),
        (["--a.no-batch-size"], True),
        (["--a.no_batch_size"], True),
        (["--a.batch-sizes", "3"], False),
        (["--b.batch-size", "--a.batch"], False),
    ],
)
def test_option_is_found_in_every_form_the_parser_takes(argv, given):
    assert is_given(argv, "--a.batch-size") == given
