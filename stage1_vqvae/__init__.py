"""Stage one: a VQ-VAE that turns images into code grids and back.

Names are imported on first use, so that reading a config does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stage1_vqvae.code_dump import CodeDump
    from stage1_vqvae.config import EMAQuantizerConfig, GradientQuantizerConfig, VQVAEConfig
    from stage1_vqvae.model import VQVAE

_EXPORTS = {
    "VQVAE": "model",
    "VQVAEConfig": "config",
    "EMAQuantizerConfig": "config",
    "GradientQuantizerConfig": "config",
    "CodeDump": "code_dump",
}
__all__ = ["VQVAE", "CodeDump", "EMAQuantizerConfig", "GradientQuantizerConfig", "VQVAEConfig"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
