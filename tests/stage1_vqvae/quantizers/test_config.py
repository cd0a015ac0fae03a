"""Settings of quantizers: what is refused and how, what is recommended, and JSON."""

import inspect
import json
import math
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields

import pytest
from tiny_vqvae import CASES, KINDS, REPRESENTATIVE

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.build import build_quantizer
from stage1_vqvae.quantizers.codebook_config import BaseQuantizerConfig
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    SINGLE_QUANTIZER_CONFIGS,
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
    kinds_with,
)
from stage1_vqvae.records import convert

NAN = float("nan")
SIZE = {"codebook_size": 1}, "codebook_size must be at least 2, got 1"
CODEBOOK = [
    SIZE,
    ({"codebook_size": 2**24 + 1}, "codebook_size must be at most 16,777,216, got 16777217"),
    ({"codebook_dim": 0}, "codebook_dim must be at least 1, got 0"),
    ({"codebook_dim": 4097}, "codebook_dim must be at most 4,096, got 4097"),
]
NEAREST = [
    *CODEBOOK,
    ({"commitment_weight": -0.1}, "commitment_weight must be at least 0, got -0.1"),
    ({"commitment_weight": NAN}, "commitment_weight must be at least 0, got nan"),
    ({"entropy_weight": -1.0}, "entropy_weight must be at least 0, got -1.0"),
    ({"entropy_temperature": 0.0}, "entropy_temperature must be above 0, got 0.0"),
    (
        {"codebook_dim": 1, "cosine": True},
        r"codebook_dim must be at least 2 with cosine=True \(one dimension has only two "
        r"directions\), got 1",
    ),
]
KMEANS = {"kmeans_batches": -1}, "kmeans_batches must be at least 0, got -1"
RESTARTS = [
    KMEANS,
    ({"decay": 0.0}, r"decay must be in \(0, 1\), got 0.0"),
    ({"decay": 1.0}, r"decay must be in \(0, 1\), got 1.0"),
    ({"decay": NAN}, r"decay must be in \(0, 1\), got nan"),
    ({"restart_threshold": -0.1}, r"restart_threshold must be in \[0, 1\), got -0.1"),
    ({"restart_threshold": 1.0}, r"restart_threshold must be in \[0, 1\), got 1.0"),
    ({"restart_until": -0.1}, r"restart_until must be in \[0, 1\], got -0.1"),
    ({"restart_until": 1.1}, r"restart_until must be in \[0, 1\], got 1.1"),
]
# A class checks what it adds and what it inherits: of what is inherited, one setting shows it.
FOLLOWING = [
    CODEBOOK[2],
    NEAREST[-1],
    KMEANS,
    (
        {"online_clustering": True},
        r"restart_threshold must be 0 with online_clustering=True \(both move unused codes\), "
        "got 0.03",
    ),
]
WEIGHT = [
    ({"codebook_weight": weight}, f"codebook_weight must be above 0, got {weight}")
    for weight in (0.0, -1.0)
]
TEMPERATURES = [
    ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
    ({"temperature": math.inf}, "temperature must be above 0, got inf"),
    ({"final_temperature": 0.0}, "final_temperature must be above 0, at most temperature=1.0"),
    (
        {"temperature": 0.5, "final_temperature": 0.6},
        "final_temperature must be above 0, at most temperature=0.5, got 0.6",
    ),
    ({"kl_weight": -1.0}, "kl_weight must be at least 0, got -1.0"),
]
REFUSALS = {
    EMAQuantizerConfig: [*NEAREST, *RESTARTS, *FOLLOWING],
    GradientQuantizerConfig: [*FOLLOWING, *WEIGHT],
    SimVQConfig: [
        CODEBOOK[2],
        NEAREST[-1],
        *WEIGHT,
        ({"moment_batches": -1}, "moment_batches must be at least 0, got -1"),
    ],
    IndexBackpropConfig: [
        CODEBOOK[2],
        *NEAREST[len(CODEBOOK) :],
        KMEANS,
        ({"codebook_weight": -1.0}, "codebook_weight must be at least 0, got -1.0"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
    ],
    GumbelConfig: [
        CODEBOOK[2],
        *TEMPERATURES,
        ({"diversity_weight": -1.0}, "diversity_weight must be at least 0, got -1.0"),
    ],
    StochasticConfig: [CODEBOOK[2], TEMPERATURES[0], TEMPERATURES[-1], KMEANS],
    FiniteScalarConfig: [
        SIZE,
        ({"codebook_size": 2**25}, "codebook_size must be at most 16,777,216, got 33554432"),
        (
            {"codebook_size": 22},
            "codebook_size must be a product of levels from 2 to 8, got 22: take another size, or "
            "name the levels",
        ),
        ({"levels": ()}, r"levels must be at least 2 in each dimension, got \(\)"),
        ({"levels": (8, 1)}, r"levels must be at least 2 in each dimension, got \(8, 1\)"),
        (
            {"levels": (5, 4, 3), "codebook_size": 512},
            r"codebook_size must be the product 60 of levels=\(5, 4, 3\), got 512",
        ),
    ],
    LookupFreeConfig: [
        SIZE,
        ({"codebook_size": -4}, "codebook_size must be at least 2, got -4"),
        ({"codebook_size": 2**25}, "codebook_size must be at most 16,777,216, got 33554432"),
        (
            {"codebook_size": 12},
            "codebook_size must be a power of two for the lookup_free quantizer, got 12",
        ),
        ({"commitment_weight": -1.0}, "commitment_weight must be at least 0, got -1.0"),
        ({"entropy_weight": -1.0}, "entropy_weight must be at least 0, got -1.0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature must be above 0, got 0.0"),
        (
            {"codebook_size": 2, "spherical": True},
            r"codebook_dim must be at least 2 with spherical=True .*, got 1",
        ),
    ],
    ResidualConfig: [
        ({"num_quantizers": 0}, "num_quantizers must be at least 1, got 0"),
        ({"num_quantizers": 257}, "num_quantizers must be at most 256, got 257"),
        ({"quantizer_dropout": 1.0}, r"quantizer_dropout must be in \[0, 1\), got 1.0"),
        ({"quantizer_dropout": -0.1}, r"quantizer_dropout must be in \[0, 1\), got -0.1"),
        (
            {"base": GumbelConfig()},
            "base.kind gumbel does not go with kind residual: .* use another base or kind product",
        ),
        *(
            (
                {"base": base},
                r"base.cosine=True does not go with kind residual \(a residual's length "
                r"matters\): switch it off",
            )
            for base in (
                EMAQuantizerConfig(cosine=True),
                GradientQuantizerConfig(cosine=True),
                SimVQConfig(cosine=True),
                IndexBackpropConfig(cosine=True),
            )
        ),
        (
            {"base": LookupFreeConfig(spherical=True)},
            "base.spherical=True does not go with kind residual .*: switch it off",
        ),
        (
            {"base": EMAQuantizerConfig(rotation_trick=True)},
            "base.rotation_trick=True does not go with kind residual .*: switch it off",
        ),
    ],
    ProductConfig: [
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"groups": 257}, "groups must be at most 256, got 257"),
        ({"codebook_dim": 0}, "codebook_dim must be at least 1, got 0"),
        ({"codebook_dim": 7}, "codebook_dim must be a multiple of groups=2, got 7"),
        (
            {"groups": 4},
            r"the dimension of base \(ema\) must be codebook_dim / groups = 8 / 4 = 2, got 4",
        ),
        (
            {"base": FiniteScalarConfig(levels=(8, 8, 8))},
            r"the dimension of base \(finite_scalar\) must be codebook_dim / groups = 8 / 2 = 4, "
            "got 3",
        ),
    ],
}


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [(cls, *refusal) for cls, refusals in REFUSALS.items() for refusal in refusals],
)
def test_settings_out_of_range_are_refused(cls, values, message):
    with pytest.raises(ValueError, match=message):
        cls(**values)


def test_every_kind_has_refusals():
    assert set(REFUSALS) == set(QUANTIZER_CONFIGS.values())


def test_limits_of_the_ranges_are_allowed():
    EMAQuantizerConfig(restart_until=0, restart_threshold=0, kmeans_batches=0)
    EMAQuantizerConfig(restart_until=1, commitment_weight=0)
    EMAQuantizerConfig(codebook_size=2, codebook_dim=1)
    EMAQuantizerConfig(online_clustering=True, restart_threshold=0.0)
    IndexBackpropConfig(commitment_weight=0, codebook_weight=0, entropy_weight=0)
    GumbelConfig(temperature=1.0, final_temperature=1.0, kl_weight=0.0)
    LookupFreeConfig(codebook_size=2)
    FiniteScalarConfig(levels=(11, 2), codebook_size=22)
    ResidualConfig(num_quantizers=1, quantizer_dropout=0.0)
    ProductConfig(groups=1, base=EMAQuantizerConfig(codebook_dim=8))


def test_configs_cannot_be_changed():
    for cls in QUANTIZER_CONFIGS.values():
        with pytest.raises(FrozenInstanceError):
            cls().kind = "other"


def test_tables_are_those_of_the_kinds_with_the_default_first():
    assert (
        *("ema", "gradient", "simvq", "finite_scalar", "lookup_free", "gumbel", "stochastic"),
        *("index_backprop", "residual", "product"),
    ) == KINDS
    assert tuple(SINGLE_QUANTIZER_CONFIGS) == KINDS[:-2]
    for kind, cls in QUANTIZER_CONFIGS.items():
        assert cls().kind == kind
        assert type(build_quantizer(cls())).__name__.removesuffix("Quantizer") == (
            cls.__name__.removesuffix("Config").removesuffix("Quantizer")
        )


def test_description_of_kind_names_every_kind():
    source = inspect.getsource(BaseQuantizerConfig).partition("Quantizer: ")[2]
    assert set(re.findall(r"[a-z_]{3,}", source.replace(" or ", " "))) == set(KINDS)


@pytest.mark.parametrize(
    ("size", "levels"),
    [(2, (2,)), (8, (8,)), (64, (8, 8)), (256, (8, 8, 4)), (512, (8, 8, 8)), (1024, (8, 8, 4, 4))],
)
def test_levels_of_usual_sizes(size, levels):
    config = FiniteScalarConfig(codebook_size=size)
    assert config.levels is None
    assert config.levels_per_dim == levels
    assert config.codebook_dim == len(levels)


@pytest.mark.parametrize("size", [2, 4, 512, 2**18])
def test_lookup_free_has_a_dimension_per_bit(size):
    assert 2 ** LookupFreeConfig(codebook_size=size).codebook_dim == size


# --- JSON


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_convert_inverts_json(name):
    values = json.loads(json.dumps({"quantizer": asdict(CASES[name])}))
    config = convert({**asdict(VQVAEConfig()), **values}, VQVAEConfig).quantizer
    assert config == CASES[name]
    assert hash(config) == hash(CASES[name])  # levels are a tuple again


@pytest.mark.parametrize("kind", KINDS)
def test_convert_of_a_missing_or_unknown_field_is_refused(kind):
    values = asdict(QUANTIZER_CONFIGS[kind]())
    fewer = [{k: v for k, v in values.items() if k != name} for name in set(values) - {"kind"}]
    for wrong in (*fewer, values | {"beta": 1.0}):
        (name,) = wrong.keys() ^ values.keys()
        with pytest.raises(ValueError, match=rf"quantizer\.(base\.)?{name}"):
            convert({**asdict(VQVAEConfig()), "quantizer": wrong}, VQVAEConfig)


@pytest.mark.parametrize("kind", ["residual", "product"])
@pytest.mark.parametrize("base", ["residual", "product"])
def test_grids_within_grids_are_refused(kind, base):
    values = asdict(QUANTIZER_CONFIGS[kind]()) | {"base": asdict(QUANTIZER_CONFIGS[base]())}
    with pytest.raises(ValueError, match=rf"'index_backprop'.*got '{base}'"):
        convert({**asdict(VQVAEConfig()), "quantizer": values}, VQVAEConfig)


# --- options


@pytest.mark.parametrize(
    ("option", "kinds"),
    [
        ("rotation_trick", ["ema", "gradient", "simvq"]),
        ("levels", ["finite_scalar"]),
        ("spherical", ["lookup_free"]),
        ("decay", ["ema", "gradient", "stochastic", "index_backprop"]),
        ("base", ["residual", "product"]),
        ("groups", ["product"]),
        ("codebook_weight", ["gradient", "simvq", "index_backprop"]),
        ("nonsense", []),
    ],
)
def test_kinds_with_an_option(option, kinds):
    assert kinds_with(option) == kinds


def test_no_option_of_the_command_line_can_be_mistaken_for_a_switched_off_one():
    # `--no-cosine` switches `cosine` off: no field may start like that itself.
    names = {f.name for cls in QUANTIZER_CONFIGS.values() for f in fields(cls)}
    assert not [name for name in names if name.startswith("no_")]


def test_importing_the_configs_does_not_import_torch():
    program = "import sys, stage1_vqvae.quantizers.config; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
