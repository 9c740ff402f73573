"""What a stack of Transformer blocks is made of, checked before anything is compiled.

Usage: ``Layers(width=64, depth=2, heads=4, is_causal=True)``, for `jaxlab.models.transformer.Stack`.
"""

from __future__ import annotations

import dataclasses
import re

import jax
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.models.attend import IMPLEMENTATIONS
from jaxlab.models.attention import Initializer
from jaxlab.models.options import divisor, rate, within, word

ACTIVATIONS = {
    "relu": nn.relu, "gelu": lambda x: nn.gelu(x, approximate=False), "gelu_tanh": nn.gelu, "silu": nn.silu,
}  # fmt: skip
GATES = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
GLOROT: Initializer = nn.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class Layers:
    """What the blocks of a stack are; every wrong value is a ConfigError that names ``config.model``'s option.

    Args:
      width: D, of the residual stream.
      depth: L, the number of blocks.
      heads: of the attention; must divide the width.
      kv_heads: heads of keys and values, dividing `heads`; 0 for as many as those.
      hidden: F, the feed-forward's width; 0 for 4 D, or for two thirds of it, up to a multiple of 8, where it is gated.
      is_causal: whether a position sees only itself and those before it.
      cross: whether each block attends to a memory as well.
      norm: ``layer`` or ``rms``.
      epsilon: the normalisation's.
      pre_norm: normalise before each sublayer and once at the end, else after each sum.
      activation: ``relu``, ``gelu`` (exact), ``gelu_tanh``, ``silu``, or gated: ``swiglu``, ``geglu``, ``reglu``.
      bias: whether the projections and layer normalisations have one.
      rotary_base: of the rotation of queries and keys; 0 for none.
      dropout: of each sublayer's result.
      attention_dropout: of the attention's weights.
      hidden_dropout: of the feed-forward's hidden features.
      stochastic_depth: how often the last block's sublayers are skipped for an example; from 0, rising with depth.
      attention: ``einsum``, ``xla`` or ``cudnn`` (bfloat16 on an NVIDIA GPU); dropout of the weights needs the first,
        and takes it in training.
      scan: whether the blocks are one `jax.lax.scan`: parameters in ``layers`` with a leading L, not ``layers_0`` ...;
        the program is then of the same size whatever the depth.
      remat: what the backward pass computes again: ``none``; ``full``, all of a block; ``dots``, all but the
        projections' results.
      kernel_init: of the projections.
      output_init: of the projections that end a sublayer.
    """

    width: int
    depth: int
    heads: int
    kv_heads: int = 0
    hidden: int = 0
    is_causal: bool = False
    cross: bool = False
    norm: str = "layer"
    epsilon: float = 1e-6
    pre_norm: bool = True
    activation: str = "gelu"
    bias: bool = True
    rotary_base: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    stochastic_depth: float = 0.0
    attention: str = "einsum"
    scan: bool = False
    remat: str = "none"
    kernel_init: Initializer = GLOROT
    output_init: Initializer = GLOROT

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            within(name, getattr(self, name), 1)
        for name in ("kv_heads", "hidden"):
            within(name, getattr(self, name), 0)
        divisor("heads", self.heads, "width", self.width)
        divisor("kv_heads", self.kv_heads or self.heads, "heads", self.heads)
        for name in ("dropout", "attention_dropout", "hidden_dropout", "stochastic_depth"):
            rate(name, getattr(self, name))
        word("norm", self.norm, ("layer", "rms"))
        word("activation", self.activation, (*ACTIVATIONS, *GATES))
        word("attention", self.attention, IMPLEMENTATIONS)
        word("remat", self.remat, ("none", *REMAT))
        _check_rotation(self)
        _check_cudnn(self)

    @property
    def hidden_width(self) -> int:
        """F as it is: given, or derived from the width."""
        gated = -(-self.width // 3) * 8  # ceilings
        return self.hidden or (gated if self.activation in GATES else 4 * self.width)

    def normalise(self, name: str | None = None) -> nn.Module:
        """Return a normalisation; its statistics are in float32."""
        if self.norm == "rms":
            return nn.RMSNorm(self.epsilon, name=name)
        return nn.LayerNorm(self.epsilon, use_bias=self.bias, use_fast_variance=False, name=name)


def _check_rotation(layers: Layers) -> None:
    within("rotary_base", layers.rotary_base, 0)
    if layers.rotary_base and layers.width // layers.heads % 2:
        raise ConfigError(
            f"config.model.heads={layers.heads}: rotary positions turn pairs of features; expected heads of an even "
            f"width, not {layers.width // layers.heads}"
        )


def _check_cudnn(layers: Layers) -> None:
    if layers.attention != "cudnn":
        return
    if layers.attention_dropout:
        raise ConfigError(
            f"config.model.attention_dropout={layers.attention_dropout}: the fused attention has none; expected 0 with "
            "config.model.attention='cudnn', or config.model.attention='xla'"
        )
    head_width = layers.width // layers.heads
    if head_width % 8 or head_width > 128:
        raise ConfigError(
            f"config.model.heads={layers.heads}: cuDNN's attention has heads of a multiple of 8 features up to 128, "
            f"not {head_width}; did you mean config.model.attention='xla'?"
        )
    device = jax.local_devices()[0]
    capability = getattr(device, "compute_capability", "")  # such as 9.0; an AMD GPU's is a word
    if not re.fullmatch(r"([89]|\d\d+)\.\d+", capability):
        found = f"{device.device_kind} {capability}".strip()
        raise ConfigError(
            "config.model.attention='cudnn': needs an NVIDIA GPU of compute capability 8.0 (Ampere) or more, and this "
            f"is a {found}; did you mean 'xla'?"
        )
