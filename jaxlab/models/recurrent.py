"""Recurrent layers: LSTM and GRU, stacked, in one direction or both, over rows of different lengths.

LSTM: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; gates in the order input, forget, cell,
output. GRU: Cho et al. 2014 (arXiv 1406.1078) with the reset gate after the product, as cuDNN and PyTorch have it;
gates in the order reset, update, new. Recurrent kernels start orthogonal gate by gate (Saxe et al. 2013, arXiv
1312.6120), input kernels by Glorot. Inputs are projected for all steps at once; see `jaxlab.models.recurrent_scan` for
the rest. A padded step, wherever it is, leaves the state as it is and gives 0, so that rows may be padded on any side.
Shape letters: B batch, T steps, D features in, H features, G gates side by side.
Usage: ``y_BTD, carries = Stack(LSTM, 128, 2, True, 0.1, 1.0)(x_BTD, mask_BT, train=train)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.mesh import BATCH, constrain, constrain_rows, rows_are_split
from jaxlab.core.types import Array
from jaxlab.models.options import rate, within, word
from jaxlab.models.recurrent_scan import gru_scan, lstm_scan

Carry = tuple[Array, ...]
"""What a layer remembers: the state [B, H] first, and for an LSTM the cell [B, H] in float32."""


def length_mask(length_B: Array, steps: int) -> Array:
    """Return the mask [B, T] that is 1 at the first `length_B` of T steps."""
    return (jnp.arange(steps) < length_B[:, None]).astype(jnp.float32)


def orthogonal_gates(gates: int) -> nn.initializers.Initializer:
    """Return an initialiser of [H, G] kernels whose square for each gate is orthogonal."""
    square = nn.initializers.orthogonal()

    def initialise(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        keys = jax.random.split(key, gates)
        return jnp.concatenate([square(k, (shape[0], shape[1] // gates), dtype) for k in keys], axis=-1)

    return initialise


class LSTM(nn.Module):
    """One layer in one direction; `forget_bias` is the forget gate's bias at the start (Jozefowicz et al. 2015: 1)."""

    features: int
    reverse: bool
    forget_bias: float

    def setup(self) -> None:
        """Make the kernels."""
        forget = (jnp.arange(4 * self.features) // self.features) == 1
        self.input = nn.Dense(
            4 * self.features, kernel_init=nn.initializers.xavier_uniform(),
            bias_init=lambda key, shape, dtype: jnp.where(forget, self.forget_bias, 0.0).astype(dtype),
        )  # fmt: skip
        self.recurrent_kernel = self.param("recurrent_kernel", orthogonal_gates(4), (self.features, 4 * self.features))

    def __call__(
        self, x_TBD: Array, mask_TB: Array | None = None, carry: Carry | None = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """Return the states [T, B, H], 0 where the mask is, and what is remembered after the last step.

        Args:
          x_TBD: inputs, time first.
          mask_TB: 1 a step, 0 padding; None for all steps.
          carry: what is remembered from before; None for nothing.
        """
        x_TBG = _project(self.input, x_TBD)
        if carry is None:
            carry = _zeros(x_TBG, self.features), _zeros(x_TBG, self.features)
        h_BH, c_BH = carry
        c_BH = c_BH.astype(jnp.promote_types(x_TBG.dtype, jnp.float32))
        mask_TB1 = None if mask_TB is None else (mask_TB > 0)[..., None]
        kernel_HG = self.recurrent_kernel.astype(x_TBG.dtype)
        y_TBH, h_BH, c_BH = lstm_scan(self.reverse, x_TBG, kernel_HG, h_BH.astype(x_TBG.dtype), c_BH, mask_TB1)
        return y_TBH if mask_TB1 is None else jnp.where(mask_TB1, y_TBH, 0), (h_BH, c_BH)


class GRU(nn.Module):
    """One layer in one direction; it has no forget gate, so `forget_bias` does nothing."""

    features: int
    reverse: bool
    forget_bias: float

    def setup(self) -> None:
        """Make the kernels."""
        self.input = nn.Dense(3 * self.features, kernel_init=nn.initializers.xavier_uniform())
        self.recurrent_kernel = self.param("recurrent_kernel", orthogonal_gates(3), (self.features, 3 * self.features))
        self.recurrent_bias = self.param("recurrent_bias", nn.initializers.zeros, (self.features,))

    def __call__(
        self, x_TBD: Array, mask_TB: Array | None = None, carry: Carry | None = None
    ) -> tuple[Array, tuple[Array]]:
        """Return as `LSTM` does, and take the same arguments."""
        x_TBG = _project(self.input, x_TBD)
        h_BH = _zeros(x_TBG, self.features) if carry is None else carry[0].astype(x_TBG.dtype)
        mask_TB1 = None if mask_TB is None else (mask_TB > 0)[..., None]
        kernel_HG, bias_H = self.recurrent_kernel.astype(x_TBG.dtype), self.recurrent_bias.astype(x_TBG.dtype)
        y_TBH, h_BH = gru_scan(self.reverse, x_TBG, kernel_HG, bias_H, h_BH, mask_TB1)
        return y_TBH if mask_TB1 is None else jnp.where(mask_TB1, y_TBH, 0), (h_BH,)


class Stack(nn.Module):
    """Layers one on the other, each in one direction or in both with the results side by side; dropout in between."""

    cell: type[LSTM] | type[GRU]
    features: int
    layers: int
    bidirectional: bool
    dropout: float
    forget_bias: float

    @classmethod
    def of(
        cls, cell: str, features: int, layers: int, bidirectional: bool, dropout: float, forget_bias: float
    ) -> Stack:
        """Return the stack of a config's options.

        Raises:
          ConfigError: a cell that is neither ``lstm`` nor ``gru``, a number below 1, or a dropout that is no rate.
        """
        cells: dict[str, type[LSTM] | type[GRU]] = {"lstm": LSTM, "gru": GRU}
        word("cell", cell, tuple(cells))
        within("features", features, 1)
        within("layers", layers, 1)
        rate("dropout", dropout)
        return cls(cells[cell], features, layers, bidirectional, dropout, forget_bias)

    def setup(self) -> None:
        """Make the layers."""
        self.forward = [self.cell(self.features, False, self.forget_bias) for _ in range(self.layers)]
        if self.bidirectional:
            self.backward = [self.cell(self.features, True, self.forget_bias) for _ in range(self.layers)]
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, x_BTD: Array, mask_BT: Array | None = None, carries: tuple[Carry, ...] | None = None, *, train: bool
    ) -> tuple[Array, tuple[Carry, ...]]:
        """Return the last layer's states [B, T, H or 2 H], and what each layer remembers.

        Args:
          x_BTD: inputs; at padding they may hold anything.
          mask_BT: 1 a step, 0 padding; None for all steps. For lengths see `length_mask`.
          carries: what an earlier call returned, of one direction; None for nothing.
          train: whether there is dropout.

        Returns:
          The states, and a carry a layer, or two where both directions are there: forward, then backward.
        """
        x_TBD = x_BTD.swapaxes(0, 1)
        mask_TB = None if mask_BT is None else mask_BT.T
        if mask_TB is not None:
            x_TBD = jnp.where((mask_TB > 0)[..., None], x_TBD, 0)
        lasts: list[Carry] = []
        for place, layer in enumerate(self.forward):
            if place:
                x_TBD = self.drop(x_TBD, deterministic=not train)
            directions = (layer, self.backward[place]) if self.bidirectional else (layer,)
            given = (None,) * len(directions) if carries is None else carries[len(lasts) : len(lasts) + len(directions)]
            results = [one(x_TBD, mask_TB, carry) for one, carry in zip(directions, given, strict=True)]
            lasts += [carry for _, carry in results]
            x_TBD = results[0][0] if len(results) == 1 else jnp.concatenate([y for y, _ in results], axis=-1)
        return x_TBD.swapaxes(0, 1), tuple(lasts)


def _project(dense: nn.Dense, x_TBD: Array) -> Array:
    """Return the inputs of all gates at all steps by one matrix product.

    Of two axes, as otherwise XLA transposes the product, which is the larger, in place of the inputs; on a mesh of
    three, as steps and split rows could be joined only by gathering them.
    """
    if rows_are_split():
        return constrain(dense(constrain(x_TBD, None, BATCH, None)), None, BATCH, None)
    return dense(x_TBD.reshape(-1, x_TBD.shape[-1])).reshape(*x_TBD.shape[:2], -1)


def _zeros(x_TBG: Array, features: int) -> Array:
    return constrain_rows(jnp.zeros((x_TBG.shape[1], features), x_TBG.dtype))
