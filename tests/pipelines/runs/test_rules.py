"""What images and machine choose, as a table of cases, and in what order it grows."""

import itertools
from dataclasses import replace

import pytest

from pipelines.runs.choices import Facts, Speed, choose, value_of, with_values
from pipelines.runs.kinds import recipe_defaults
from pipelines.runs.length_rules import DEFAULT_HOURS, LENGTH_RULES
from pipelines.runs.recipes import RECIPES
from pipelines.runs.rules import (
    CHOOSING_RECIPES,
    CHOSEN_OPTIONS,
    MODEL_RULES,
    data_warnings,
)

RULES = (*MODEL_RULES, *LENGTH_RULES)
LAPTOP = Speed(vqvae=120.0, prior=120.0)
GPU = Speed(vqvae=5000.0, prior=10_000.0)
# Of 50, 500, 5,000 and 50,000 images: those of the three splits that are not given.
TRAINING_IMAGES = {50: (36, 9), 500: (400, 40), 5000: (4275, 225), 50_000: (42_750, 2250)}


def facts(images, side=64, **others):
    train, validation = TRAINING_IMAGES[images]
    defaults = {"image_shape": (3, side, side), "speed": LAPTOP}
    return Facts(num_train=train, num_validation=validation, **(defaults | others))


def chosen(found, recipe="folder-64", given=None):
    """The settings that `found` chooses where the user gave some options."""
    config, _ = choices_beside(found, given or {}, recipe)
    return config


def choices_beside(found, given, recipe="folder-64"):
    left_open = [option for option in CHOSEN_OPTIONS if option not in given]
    config = with_values(RECIPES[recipe], given)
    return choose(RULES, replace(found, given=tuple(given)), config, left_open)


def seconds_of(run, found):
    """The time of each training."""
    stages = ((run.vqvae_training, found.speed.vqvae), (run.prior_training, found.speed.prior))
    return [training.epochs * found.num_train / speed for training, speed in stages]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (50, {"codebook-size": 64, "width": 96, "prior": (3, 96, 3), "batches": (8, 8)}),
        (500, {"codebook-size": 256, "width": 96, "prior": (4, 128, 4), "batches": (32, 32)}),
        (5000, {"codebook-size": 1024, "width": 160, "prior": (6, 192, 6), "batches": (32, 64)}),
        (50_000, {"codebook-size": 1024, "width": 160, "prior": (8, 256, 8), "batches": (32, 64)}),
    ],
)
def test_number_of_images_chooses_the_networks(images, expected):
    run = chosen(facts(images))
    assert run.vqvae.downsampling == 8
    assert {
        "codebook-size": run.vqvae.quantizer.codebook_size,
        "width": run.vqvae.width,
        "prior": (run.prior.num_layers, run.prior.width, run.prior.num_heads),
        "batches": (run.vqvae_training.batch_size, run.prior_training.batch_size),
    } == expected


@pytest.mark.parametrize(
    ("side", "expected"),
    [(32, (4, None)), (64, (8, None)), (128, (8, 64)), (256, (16, 128))],
)
def test_size_of_images_chooses_the_code_grid_and_the_crop(side, expected):
    run = chosen(facts(5000, side))
    assert (run.vqvae.downsampling, run.vqvae_augmentation.crop) == expected


def test_larger_images_are_seen_in_crops_by_networks_that_are_narrower_where_they_are_fine():
    runs = {side: chosen(facts(5000, side)) for side in (32, 64, 128, 256)}
    for smaller, larger in itertools.pairwise(runs.values()):
        assert smaller.vqvae.fine_width >= larger.vqvae.fine_width
    assert runs[32].vqvae.fine_width > runs[256].vqvae.fine_width
    for side, run in runs.items():
        assert (run.vqvae_augmentation.crop or side) <= 128


def test_images_are_augmented_until_there_are_enough():
    for images, augments in ((50, True), (500, True), (5000, True), (50_000, False)):
        run = chosen(facts(images))
        assert run.vqvae_augmentation.flip == run.prior_augmentation.flip == augments
        # Half a code's square, so that the codes of a view are others.
        assert run.prior_augmentation.shift == (run.vqvae.downsampling // 2 if augments else 0)


def test_prior_of_many_codes_takes_small_batches():
    runs = [chosen(facts(50_000, side)) for side in (256, 512, 1024)]
    # 16x16, 32x32 and 64x64 codes of 16x16 pixels.
    assert {run.vqvae.downsampling for run in runs} == {16}
    batches = [run.prior_training.batch_size for run in runs]
    assert batches == [batches[0], batches[0] // 4, batches[0] // 16]


@pytest.mark.parametrize("shape", [(3, 128, 128), (3, 128, 40), (3, 256, 12), (1, 67, 80)])
def test_crops_fit_the_images_and_the_downsampling(shape):
    found = facts(500, image_shape=shape)
    run = chosen(found)
    run.vqvae_augmentation.check_fits(shape, run.vqvae.downsampling)
    run.prior_augmentation.check_fits(shape)


def test_more_images_never_get_smaller_networks_less_training_or_more_dropout():
    runs = [chosen(facts(images, speed=GPU)) for images in TRAINING_IMAGES]
    for (fewer, small), (more, large) in itertools.pairwise(
        zip(TRAINING_IMAGES.values(), runs, strict=True)
    ):
        for option in CHOSEN_OPTIONS:
            if option.endswith(("size", "width", "layers", "heads")):
                assert value_of(small, option) <= value_of(large, option), option
        assert small.prior.dropout >= large.prior.dropout
        for stage in ("vqvae_training", "prior_training"):
            few, many = getattr(small, stage), getattr(large, stage)
            assert few.epochs > many.epochs
            assert few.epochs * fewer[0] < many.epochs * more[0]  # images seen


@pytest.mark.parametrize("images", TRAINING_IMAGES)
def test_training_has_enough_steps_and_ends_by_itself(images):
    found = facts(images)
    run = chosen(found)
    for training in (run.vqvae_training, run.prior_training):
        assert training.batch_size <= found.num_train
        steps = training.total_steps(found.num_train)
        between = training.steps_between_validations(found.num_train)
        assert steps >= 1000
        assert between >= 10
        assert 4 <= steps / between <= 42
        assert 1 <= training.patience < steps / between


@pytest.mark.parametrize("recipe", CHOOSING_RECIPES)
@pytest.mark.parametrize("hours", [0.1, 1.0])
def test_both_trainings_fit_into_the_hours(recipe, hours):
    found = facts(50_000, int(recipe.removeprefix("folder-")), hours=hours)
    run = chosen(found, recipe)
    seconds = seconds_of(run, found)
    assert sum(seconds) <= 3600 * hours
    assert seconds == pytest.approx([0.45 * 3600 * hours] * 2, rel=0.1)


def test_stage_takes_the_time_that_the_other_does_not_need():
    fast_prior = replace(LAPTOP, prior=1e6)
    epochs = [
        chosen(facts(50_000, speed=speed)).vqvae_training.epochs for speed in (LAPTOP, fast_prior)
    ]
    assert epochs[1] == pytest.approx(2 * epochs[0], rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("stage", [0, 1])
def test_stage_takes_the_time_that_the_users_epochs_of_the_other_leave(stage, share):
    found = facts(50_000)
    budget = 0.9 * 3600 * found.hours
    epochs = max(share * budget * LAPTOP.vqvae / found.num_train, 0.01)
    option = ("--vqvae-training.epochs", "--prior-training.epochs")[stage]
    seconds = seconds_of(chosen(found, given={option: epochs}), found)
    assert seconds[stage] == pytest.approx(share * budget, abs=5)
    assert seconds[1 - stage] == pytest.approx((1 - share) * budget, rel=0.05)


def test_epochs_that_fill_the_hours_leave_a_tenth_to_the_other_stage():
    found = facts(50_000)
    seconds = seconds_of(chosen(found, given={"--vqvae-training.epochs": 100.0}), found)
    assert seconds[1] == pytest.approx(0.1 * 0.9 * 3600 * found.hours, rel=0.05)


@pytest.mark.parametrize("images", TRAINING_IMAGES)
def test_validations_take_a_small_share_of_a_training_of_many_images(images):
    found = facts(images)
    run = chosen(found)
    for training in (run.vqvae_training, run.prior_training):
        count = training.epochs / training.validate_every
        # Each is one forward pass of as many training as validation images; a step costs three.
        share = count * 2 * found.num_validation / (3 * training.epochs * found.num_train)
        assert share <= 0.06 or count <= 4.1
        # A quarter of them without a better one ends the training, but not fewer than three.
        assert training.patience == pytest.approx(max(3, count / 4), abs=1)


def test_hours_are_fewer_on_a_gpu():
    assert 0 < DEFAULT_HOURS["cuda"] < 1
    assert "cpu" not in DEFAULT_HOURS  # one hour


def test_gpu_takes_wider_networks_in_stage_one_only():
    laptop, gpu = (chosen(facts(5000, device=device)) for device in ("cpu", "cuda"))
    assert (gpu.vqvae.width, gpu.vqvae.fine_width) == (
        2 * laptop.vqvae.width,
        2 * laptop.vqvae.fine_width,
    )
    assert gpu.prior == laptop.prior  # its size is a matter of overfitting


@pytest.mark.parametrize(("count", "batch_size"), [(1, 64), (3, 63), (8, 64)])
def test_processes_can_share_a_batch(count, batch_size):
    run = chosen(facts(5000, num_processes=count))
    assert run.prior_training.batch_size == batch_size


@pytest.mark.parametrize("count", range(1, 12))
def test_choices_for_the_fewest_images_are_valid(count):
    run = chosen(Facts(num_train=count, num_validation=1, image_shape=(3, 64, 64), speed=LAPTOP))
    assert run.vqvae_training.batch_size <= count


def test_few_images_and_large_ones_are_warned_of():
    assert list(data_warnings(50, (3, 256, 200))) == []
    (few,) = data_warnings(49, (3, 64, 64))
    assert "49 images" in few
    (large,) = data_warnings(50, (1, 200, 257))
    assert "200x257" in large
    assert "--data.image-size 256 256" in large


def test_rules_choose_exactly_the_options_that_are_left_open_to_them():
    _, choices = choose(RULES, facts(500), RECIPES["folder-64"], CHOSEN_OPTIONS)
    assert sorted(choice.option for choice in choices) == sorted(CHOSEN_OPTIONS)
    assert all(choice.reason for choice in choices)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--vqvae.downsampling", 4), ("--vqvae.width", 40), ("--prior.width", 40)),
        *(("--prior.num-heads", 16), ("--prior-training.epochs", 3.0)),
        *(("--vqvae-training.patience", None), ("--prior-augmentation.shift", 0)),
    ],
)
def test_what_the_user_gave_stays(option, value):
    run, choices = choices_beside(facts(500), {option: value})
    assert value_of(run, option) == value
    assert option not in [choice.option for choice in choices]


def test_width_of_the_prior_is_a_multiple_of_the_users_heads():
    heads = 64  # of those that divide the recipe's width, some that divide no chosen one
    free = chosen(facts(50))
    run = chosen(facts(50), given={"--prior.num-heads": heads})
    assert run.prior.num_heads == heads
    assert 0 <= run.prior.width - free.prior.width < heads
    assert free.prior.width % heads != 0 == run.prior.width % heads


def test_codebook_follows_the_users_downsampling():
    # 400 images of 4x4 codes are 6,400 positions, a hundred for each of 64 codes.
    run = chosen(facts(500), given={"--vqvae.downsampling": 16})
    assert run.vqvae.quantizer.codebook_size == 64


@pytest.mark.parametrize("quantizer", ["finite_scalar", "lookup_free", "residual", "product"])
def test_choices_that_do_not_fit_the_users_kinds_are_left_out(quantizer):
    argv = ["--recipe", "folder-64", "--vqvae.quantizer.kind", quantizer]
    base = recipe_defaults([*argv, "--prior.kind=pixelcnn"])
    run, choices = choose(RULES, facts(500), base, CHOSEN_OPTIONS)
    options = [choice.option for choice in choices]
    composite = quantizer in ("residual", "product")
    assert ("--vqvae.quantizer.codebook-size" in options) == (not composite)
    assert "--prior.dropout" in options
    assert "--prior.num-layers" not in options
    assert run.prior == replace(base.prior, dropout=chosen(facts(500)).prior.dropout)
