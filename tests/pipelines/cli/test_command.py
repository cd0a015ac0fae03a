"""Options, messages and exit statuses that all commands share."""

import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from tiny_runs import python, status, train_options

import pipelines
from pipelines.cli.command import parse, run_command
from pipelines.cli.echo import say
from pipelines.runs.kinds import named_run, option_value, recipe_defaults, with_prior_kind
from pipelines.runs.recipes import RECIPES
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    EMAQuantizerConfig,
    FiniteScalarConfig,
    GradientQuantizerConfig,
    GumbelConfig,
    IndexBackpropConfig,
    LookupFreeConfig,
    ProductConfig,
    ResidualConfig,
    SimVQConfig,
    StochasticConfig,
)
from stage2_prior.config import PixelCNNConfig, TransformerConfig


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], None),
        (["--recipe", "smoke"], "smoke"),
        (["--recipe=smoke"], "smoke"),
        (["--recipe="], ""),
        (["--recipe"], None),
        (["--recipe", "mnist", "--recipe", "smoke"], "smoke"),
        (["--recipe=mnist", "--seed", "1", "--recipe", "smoke"], "smoke"),
        (["--recipe", "mnist", "--recipe=smoke"], "smoke"),
        (["--recipes", "smoke", "--recipes=smoke"], None),
    ],
)
def test_option_value_is_the_last_one_given(argv, value):
    assert option_value(argv, "--recipe") == value


def test_recipe_defaults_are_the_named_recipe():
    assert {name: recipe_defaults(["--recipe", name]) for name in RECIPES} == RECIPES


def test_recipe_defaults_without_a_name_are_the_embedded_set():
    assert recipe_defaults(["--seed", "3"]) == RECIPES["fashion-mnist-mini"]


def test_recipe_defaults_swap_the_quantizer_and_keep_what_both_kinds_have():
    argv = ["--recipe", "cifar10", "--vqvae.quantizer.kind=gradient"]
    base = RECIPES["cifar10"]
    shared = {k: v for k, v in asdict(base.vqvae.quantizer).items() if k != "kind"}
    expected = replace(base, vqvae=replace(base.vqvae, quantizer=GradientQuantizerConfig(**shared)))
    assert recipe_defaults(argv) == expected


def quantizer_of(*options):
    """The quantizer that the command line names by kind, before its other options are read."""
    return recipe_defaults(options).vqvae.quantizer


def test_quantizer_kind_without_anything_chosen_has_its_own_defaults():
    # The embedded set's recipe leaves its quantizer as it is.
    found = {kind: quantizer_of("--vqvae.quantizer.kind", kind) for kind in QUANTIZER_CONFIGS}
    assert found == {kind: config() for kind, config in QUANTIZER_CONFIGS.items()}


def test_quantizer_kind_keeps_what_the_recipe_chose_and_both_kinds_have():
    # The smoke recipe has chosen codebook_size=64 and kmeans_batches=2.
    both = {"codebook_size": 64, "kmeans_batches": 2}
    expected = {
        "gradient": GradientQuantizerConfig(**both),
        "stochastic": StochasticConfig(**both),
        "index_backprop": IndexBackpropConfig(**both),
        "simvq": SimVQConfig(codebook_size=64),
        "gumbel": GumbelConfig(codebook_size=64),
        "finite_scalar": FiniteScalarConfig(codebook_size=64),
        "lookup_free": LookupFreeConfig(codebook_size=64),
        "residual": ResidualConfig(),
        "product": ProductConfig(),
    }
    smoke = ("--recipe", "smoke")
    found = {kind: quantizer_of(*smoke, f"--vqvae.quantizer.kind={kind}") for kind in expected}
    assert found == expected


def test_quantizer_kind_does_not_keep_defaults_of_another_kind():
    # An EMA quantizer's commitment_weight is 1 by default and was not chosen.
    config = quantizer_of("--vqvae.quantizer.kind", "lookup_free")
    assert EMAQuantizerConfig().commitment_weight != config.commitment_weight
    assert config.commitment_weight == LookupFreeConfig().commitment_weight


def test_base_kind_of_a_residual_quantizer_is_swapped():
    # 32 codes are the choice of the residual quantizer's own default.
    expected = {
        # Residuals have lengths, whatever the kind's own default.
        "index_backprop": IndexBackpropConfig(codebook_size=32, cosine=False),
        "gradient": GradientQuantizerConfig(codebook_size=32),
        "finite_scalar": FiniteScalarConfig(codebook_size=32),
        "lookup_free": LookupFreeConfig(codebook_size=32),
        "stochastic": StochasticConfig(codebook_size=32),
        "simvq": SimVQConfig(codebook_size=32),
        "ema": EMAQuantizerConfig(codebook_size=32),
    }
    options = ("--vqvae.quantizer.kind", "residual", "--vqvae.quantizer.base.kind")
    assert {base: quantizer_of(*options, base) for base in expected} == {
        base: ResidualConfig(base=config) for base, config in expected.items()
    }


def test_base_kind_of_a_product_quantizer_is_swapped_with_the_dimension():
    expected = {
        "gumbel": GumbelConfig(codebook_size=32, codebook_dim=4),
        "index_backprop": IndexBackpropConfig(codebook_size=32, codebook_dim=4),
        # The dimension is the number of levels or bits.
        "finite_scalar": FiniteScalarConfig(codebook_size=32),
        "lookup_free": LookupFreeConfig(codebook_size=32),
    }
    options = ("--vqvae.quantizer.kind=product", "--vqvae.quantizer.base.kind")
    assert {base: quantizer_of(*options, base) for base in expected} == {
        base: ProductConfig(base=config, codebook_dim=2 * config.codebook_dim)
        for base, config in expected.items()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--vqvae.quantizer.levels", "8"],
            "--vqvae.quantizer.levels does not go with --vqvae.quantizer.kind gradient: it is an "
            "option of finite_scalar",
        ),
        (
            ["--vqvae.quantizer.rotation-trick", "--vqvae.quantizer.kind", "finite_scalar"],
            "--vqvae.quantizer.rotation-trick does not go with --vqvae.quantizer.kind "
            "finite_scalar: it is an option of ema, gradient, simvq",
        ),
        (
            ["--vqvae.quantizer.kind=gumbel", "--vqvae.quantizer.no-cosine"],
            "--vqvae.quantizer.no-cosine does not go with --vqvae.quantizer.kind gumbel: .* ema, "
            "gradient, simvq, index_backprop",
        ),
        (
            ["--vqvae.quantizer.kind", "residual", "--vqvae.quantizer.codebook-size", "64"],
            "--vqvae.quantizer.codebook-size does not go with --vqvae.quantizer.kind residual",
        ),
        (
            ["--vqvae.quantizer.kind", "residual", "--vqvae.quantizer.base.levels", "8"],
            "--vqvae.quantizer.base.levels does not go with --vqvae.quantizer.base.kind ema: .* of "
            "finite_scalar",
        ),
        (
            [
                "--vqvae.quantizer.kind=product",
                "--vqvae.quantizer.base.kind=gumbel",
                "--vqvae.quantizer.base.decay=0.9",
            ],
            "--vqvae.quantizer.base.decay does not go with --vqvae.quantizer.base.kind gumbel: .* "
            "of ema, gradient",
        ),
    ],
)
def test_option_of_another_quantizer_is_refused_with_both_kinds(options, message):
    with pytest.raises(ValueError, match=message):
        recipe_defaults(options)


def test_option_of_another_quantizer_is_one_line_of_the_command(capsys):
    options = ["--vqvae.quantizer.kind", "finite_scalar", "--vqvae.quantizer.rotation-trick"]
    assert status("train_all", *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --vqvae.quantizer.rotation-trick does not go with ")
    assert error.count("\n") == 1


def test_option_of_no_quantizer_is_left_to_the_parser(capsys):
    assert recipe_defaults(["--vqvae.quantizer.nonsense", "3"]) == RECIPES["fashion-mnist-mini"]
    assert status("train_all", "--vqvae.quantizer.nonsense", "3") == 2
    assert "Unrecognized options: --vqvae.quantizer.nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["kind=finite_scalar", "levels", "5", "4", "3", "codebook-size=60"],
            FiniteScalarConfig(codebook_size=60, levels=(5, 4, 3)),
        ),
        (
            ["kind=residual", "num-quantizers=4", "base.kind=lookup_free", "base.codebook-size=8"],
            ResidualConfig(num_quantizers=4, base=LookupFreeConfig(codebook_size=8)),
        ),
        (
            ["kind=product", "groups=4", "base.codebook-dim=2", "base.cosine"],
            ProductConfig(
                groups=4, base=EMAQuantizerConfig(codebook_size=32, codebook_dim=2, cosine=True)
            ),
        ),
        (
            ["kind=gradient", "online-clustering", "restart-threshold=0", "rotation-trick"],
            GradientQuantizerConfig(
                online_clustering=True, restart_threshold=0.0, rotation_trick=True
            ),
        ),
    ],
)
def test_options_of_a_quantizer_are_read_after_the_swap(options, expected, monkeypatch):
    argv = [o if o.isdecimal() else f"--vqvae.quantizer.{o}" for o in options]
    monkeypatch.setattr(sys, "argv", ["train_all.py", *argv])
    assert train_options().run.vqvae.quantizer == expected


def test_impossible_quantizer_is_refused_with_both_options(capsys):
    options = ["--vqvae.quantizer.kind", "product", "--vqvae.quantizer.groups", "4"]
    assert status("train_all", *options) == 2
    lines = capsys.readouterr().err.splitlines()
    message = " ".join(line.strip("│╭╮╰╯─ ") for line in lines)
    assert "dimension of base (ema) must be codebook_dim / groups = 8 / 4 = 2, got 4" in message


def test_recipe_defaults_swap_the_prior_and_keep_what_both_kinds_have():
    config = recipe_defaults(["--prior.kind", "pixelcnn", "--recipe", "smoke"])
    assert config == replace(
        RECIPES["smoke"], prior=PixelCNNConfig(num_layers=2, width=64, kernel_size=5, num_heads=2)
    )


def test_prior_kind_that_is_already_there_changes_nothing():
    config = TransformerConfig(num_heads=2, width=10)
    assert with_prior_kind(config, ["--prior.kind", "transformer"]) is config


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prior.kind", "lstm"], "--prior.kind must be one of transformer, pixelcnn, got lstm"),
        (
            ["--vqvae.quantizer.kind=lfq"],
            "--vqvae.quantizer.kind must be one of ema, gradient, .*, product, got lfq",
        ),
        (
            ["--vqvae.quantizer.kind=residual", "--vqvae.quantizer.base.kind=product"],
            "--vqvae.quantizer.base.kind must be one of ema, .*, index_backprop, got product",
        ),
    ],
)
def test_unknown_kind_is_refused(argv, message):
    with pytest.raises(ValueError, match=message):
        recipe_defaults(argv)


def test_options_overrule_the_recipe_and_the_last_one_wins(monkeypatch):
    options = ["--vqvae.width", "5", "--recipe=cifar10", "--seed", "1", "--seed", "2"]
    monkeypatch.setattr(sys, "argv", ["train_all.py", *options])
    base = RECIPES["cifar10"]
    expected = replace(base, seed=2, vqvae=replace(base.vqvae, width=5))
    run = train_options().run
    assert replace(run, data=replace(run.data, root=base.data.root)) == expected


def test_option_of_the_other_kind_is_read_after_the_swap(monkeypatch):
    options = ["--prior.kernel-size", "7", "--prior.kind", "pixelcnn"]
    monkeypatch.setattr(sys, "argv", ["train_all.py", *options])
    assert train_options().run.prior.kernel_size == 7


@pytest.mark.parametrize("name", ["train_all", "train_vqvae"])
def test_unknown_recipe_is_refused_with_the_known_ones(name, capsys):
    assert status(name, "--recipe", "smok") == 2
    message = capsys.readouterr().err
    assert "invalid choice 'smok'" in message
    assert all(recipe in message for recipe in RECIPES)


@pytest.mark.parametrize(
    ("name", "option", "nearest"),
    [
        ("train_all", "--data.sorce", "--data.source"),
        ("train_vqvae", "--vqvae.widht", "--vqvae.width"),
        ("train_prior", "--prior.widht", "--prior.width"),
        ("sample", "--temperatur", "--temperature"),
    ],
)
def test_unknown_option_names_the_nearest_and_exits_with_2(name, option, nearest, rgb_run, capsys):
    run = () if name.startswith("train_") and name != "train_prior" else ("--run", rgb_run)
    assert status(name, *run, option, "1") == 2
    message = capsys.readouterr().err
    assert f"Unrecognized options: {option}" in message
    assert nearest in message.partition("Perhaps you meant")[2]


def test_option_of_the_other_kind_is_unknown(capsys):
    assert status("train_all", "--prior.kind", "transformer", "--prior.kernel-size", "3") == 2
    assert "Unrecognized options: --prior.kernel-size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vqvae.width", "0"], "width must be at least 1, got 0"),
        (["--data.source", "mnits"], "got 'mnits': did you mean mnist?"),
        (["--vqvae.downsampling", "3"], "invalid choice '3' for argument '--vqvae.downsampling'"),
        (["--seed", "x"], "Error parsing --seed: invalid literal for int() with base 10: 'x'"),
    ],
)
def test_impossible_value_exits_with_2_and_says_what_is_possible(options, message, capsys):
    assert status("train_all", *options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in " ".join(line.strip("│╭╮╰╯─ ") for line in lines)


def test_negative_seed_is_refused(capsys):
    assert status("train_all", "--seed", "-1") == 1
    assert capsys.readouterr().err == "error: seed must be in [0, 2^63), got -1\n"


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])
def test_user_error_is_one_line_and_status_1(kind, capsys):
    with pytest.raises(SystemExit) as leaving:
        run_command(raising(kind("a must be b")))
    assert leaving.value.code == 1
    assert capsys.readouterr().err == "error: a must be b\n"


@pytest.mark.parametrize("bug", [KeyError("a"), AssertionError("a")])
def test_bug_keeps_its_traceback(bug):
    with pytest.raises(type(bug)) as caught:
        run_command(raising(bug))
    assert caught.value is bug


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "a/b"),
            "a/b: No such file or directory",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("class a\nb is unknown"), "class a b is unknown"),
    ],
)
def test_error_of_the_system_or_of_several_lines_is_one_line_without_numbers(error, line, capsys):
    with pytest.raises(SystemExit):
        run_command(raising(error))
    assert capsys.readouterr().err == f"error: {line}\n"


def test_user_error_with_traceback_asked_for_is_raised(monkeypatch):
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(ValueError, match="a must be b"):
        run_command(raising(ValueError("a must be b")))


def test_interruption_exits_with_130(capsys):
    with pytest.raises(SystemExit) as leaving:
        run_command(raising(KeyboardInterrupt()))
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_success_exits_with_0():
    with pytest.raises(SystemExit) as leaving:
        run_command(lambda: None)
    assert leaving.value.code == 0


def test_module_run_as_a_script_says_one_line_for_an_error():
    ended = python("-m", "pipelines.reconstruct", "--run", "nowhere")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: a run directory is required, but nowhere/config.json")
    assert ended.stderr.count("\n") == 1


def test_module_run_as_a_script_calls_itself_as_it_was_called():
    ended = python("-m", "pipelines.reconstruct", "--m", "3")
    assert ended.returncode == 2
    assert "python -m pipelines.reconstruct --help" in ended.stderr


@pytest.mark.parametrize(
    ("size", "rank", "text"),
    [
        (None, None, "hello\n"),
        ("2", "0", "hello\n"),
        ("2", "1", ""),
        (None, "1", "hello\n"),  # a RANK alone is left over from something else
        ("", "1", "hello\n"),
    ],
)
def test_say_prints_from_one_process_only(size, rank, text, monkeypatch, capsys):
    for name, value in (("WORLD_SIZE", size), ("RANK", rank)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    say("hello")
    assert capsys.readouterr().out == text


@dataclass(frozen=True)
class Inner:
    """Options below others."""

    path: Path = Path("~/inner")
    """Of a default too."""


@dataclass(frozen=True)
class WithPaths:
    """Options with paths."""

    out: Path | None = None
    """One."""
    run: tuple[Path, ...] = ()
    """Several."""
    inner: Inner = Inner()
    """Others."""
    name: str = "~"
    """Not a path."""


def test_home_directory_is_expanded_in_every_path_and_nothing_else(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    argv = ["--out=~/r", "--run", "~/a", "b~", "~nobody-of-this-name/c", "--name=~/r"]
    monkeypatch.setattr(sys, "argv", ["command", *argv])
    home = Path("/home/me")
    assert parse(WithPaths) == WithPaths(
        out=home / "r",
        run=(home / "a", Path("b~"), Path("~nobody-of-this-name/c")),
        inner=Inner(home / "inner"),
        name="~/r",
    )


def test_home_directory_is_expanded_in_the_run_whose_settings_are_read_first(monkeypatch, rgb_run):
    monkeypatch.setenv("HOME", str(rgb_run.parent))
    monkeypatch.setenv("USERPROFILE", str(rgb_run.parent))
    directory, _ = named_run([f"--run=~/{rgb_run.name}"])
    assert directory.path == rgb_run


def test_no_command_line_is_printed_with_a_path_that_is_not_quoted():
    sources = (Path(pipelines.__file__).parent).rglob("*.py")
    unquoted = re.compile(r"--(run|out|images|mask)[ =]{(?!shlex)")
    assert [path for path in sources if unquoted.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("size", ["", "1"])
def test_command_of_one_process_ends_as_usual(size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(SystemExit) as leaving:
        run_command(lambda: None)
    assert leaving.value.code == 0


@pytest.mark.parametrize("size", ["two", "0"])
def test_command_refuses_an_impossible_number_of_processes(size, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(SystemExit) as leaving:
        run_command(lambda: None)
    assert leaving.value.code == 1
    assert (
        f"WORLD_SIZE must be a whole number of at least 1, got '{size}'" in capsys.readouterr().err
    )
