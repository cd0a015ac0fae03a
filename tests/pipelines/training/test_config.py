import subprocess
import sys

import pytest

from pipelines.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be positive and finite, got 0"),
        ({"epochs": float("inf")}, "epochs must be positive and finite, got inf"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
        ({"validate_every": -1}, "validate_every must be positive and finite, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"accumulation": 0}, "accumulation must be at least 1, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"final_learning_rate": 1.5}, r"final_learning_rate must be in \[0, 1\], got 1.5"),
        ({"warmup_fraction": -0.1}, r"warmup_fraction must be in \[0, 1\], got -0.1"),
        ({"average_decay": 1.0}, r"average_decay must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be zero or more and finite, got -1.0"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers in \[0, 1\), got \(0.9, 1.0\)"),
        ({"clip_norm": 0.0}, "clip_norm must be positive or None, got 0.0"),
        ({"patience": 0}, "patience must be 1 or more, or None, got 0"),
        ({"precision": "fp16"}, "precision must be auto, fp32 or bf16, got fp16"),
        ({"batch_size": 10, "accumulation": 4}, "multiple of accumulation, got 10 and 4"),
    ],
)
def test_config_refuses_a_value_outside_its_range(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_config_counts_steps_from_fractional_epochs():
    config = TrainingConfig(epochs=2.5, validate_every=0.5, batch_size=64)
    assert config.total_steps(10_000) == 391  # 25,000 / 64 = 390.6
    assert config.steps_between_validations(10_000) == 78  # 5,000 / 64 = 78.1


def test_config_trains_at_least_one_step_on_a_tiny_set():
    assert TrainingConfig(epochs=0.1, batch_size=64).total_steps(3) == 1


def test_config_imports_without_torch():
    code = "import sys, pipelines.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
