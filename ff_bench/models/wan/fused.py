"""The transformer made fast on CUDA: fused elementwise work around the library's matrix products.

Roundings differ from the original's in the last place, as sums and products of one expression stay in fp32.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ff_bench.models.wan.network import Block, WanNetwork


@torch.library.custom_op("ff_bench::linear_gelu", mutates_args=())
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return GELU(x @ weight^T + bias), tanh form: on CUDA inside the matrix product.

    Args:
        x: (B, N, C).
        weight: (O, C).
        bias: (O,).
    """
    if not x.is_cuda or x.dtype == torch.float32:
        return F.gelu(F.linear(x, weight, bias), approximate="tanh")
    flat = torch._addmm_activation(bias, x.flatten(0, 1), weight.mT, use_gelu=True)
    return flat.view(*x.shape[:2], -1)


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], weight.shape[0])


class LinearGelu(nn.Module):
    """A linear layer and its activation in one call; shares the weights of the layer that it is made from."""

    def __init__(self, layer: nn.Linear) -> None:
        """Take over a layer."""
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU of the projected tokens, (B, N, O)."""
        out: Tensor = linear_gelu(x, self.weight, self.bias)
        return out


def fuse(network: WanNetwork) -> WanNetwork:
    """Compile both halves of every block, in place; all blocks share the compiled code."""
    before = torch.compile(Block.before, dynamic=False)
    after = torch.compile(Block.after, dynamic=False)
    for module in network.blocks:
        block = cast(Block, module)
        block.ffn[0], block.ffn[1] = LinearGelu(cast(nn.Linear, block.ffn[0])), nn.Identity()
        block.before = before.__get__(block)  # type: ignore[method-assign]
        block.after = after.__get__(block)  # type: ignore[method-assign]
    return network
