"""Multi-head causal self-attention."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from stage2_prior.attention import causal_attention


class CausalSelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) with a causal mask."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, prefix: int = 0) -> Tensor:
        """Maps (B, L, E) to the same shape; every position sees the first `prefix` ones."""
        query, key, value = rearrange(
            self.to_qkv(x), "b l (three n d) -> three b n l d", three=3, n=self.num_heads
        )
        heads = causal_attention(query, key, value, prefix)
        projected: Tensor = self.project(rearrange(heads, "b n l d -> b l (n d)"))
        return projected
