import math
import re
import subprocess
import sys

import pytest

from pipelines.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("epochs", "learning_rate", "validate_every"), (0, -1, math.inf, math.nan)),
        (("batch_size", "accumulation", "checkpoint_every", "log_every"), (0,)),
        (("final_learning_rate", "warmup_fraction"), (-0.1, 1.5)),
        (("average_decay",), (-0.1, 1.0)),
        (("weight_decay",), (-1.0, math.inf)),
        (("betas",), ((0.9, 1.0),)),
        (("clip_norm", "patience"), (0,)),
        (("precision", "optimizer"), ("fp16",)),
    ],
)
def test_config_refuses_a_value_outside_its_range(names, values):
    for name in names:
        for value in values:
            with pytest.raises(ValueError, match=rf"{name} .*got {re.escape(str(value))}"):
                TrainingConfig(**{name: value})


def test_config_refuses_parts_of_unequal_size():
    with pytest.raises(ValueError, match="accumulation, got 10 and 4"):
        TrainingConfig(batch_size=10, accumulation=4)


def test_config_counts_steps_from_fractional_epochs():
    config = TrainingConfig(epochs=2.5, validate_every=0.5, batch_size=64)
    assert config.total_steps(10_000) == 391  # 25,000 / 64 = 390.6
    assert config.steps_between_validations(10_000) == 78  # 5,000 / 64 = 78.1


def test_config_trains_at_least_one_step_on_a_tiny_set():
    assert TrainingConfig(epochs=0.1, batch_size=64).total_steps(3) == 1


def test_config_imports_without_torch():
    code = "import sys, pipelines.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
