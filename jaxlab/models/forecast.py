"""Forecasts of several steps by an LSTM with self-attention over all that it read.

After the temporal fusion transformer (Lim et al. 2019, arXiv 1912.09363, sections 4.5 and 4.6): an LSTM reads the past,
a second one goes on over what is known of the future, a shortcut and a normalisation follow, then causal self-attention
over past and future, and one forecast a step; without its selection of variables and gates. The forecast of a step so
depends on the past and on what is known of that step and those before it.
Shape letters: B batch, L steps of past, H of horizon, F inputs, K known inputs, D features, T targets, Q quantiles.
Usage: ``config.model = spec("jaxlab.models.forecast:make", width=64)``; data of `jaxlab.data.windows`.
"""

from __future__ import annotations

import itertools

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import Array, DataSpec
from jaxlab.models import recurrent, transformer
from jaxlab.models.dense import Dense
from jaxlab.models.options import rate, within, word
from jaxlab.models.transformer_options import Layers

OUTPUTS = ("point", "gaussian", "quantile")


class Head(nn.Module):
    """What is said of each target: a number, a normal distribution, or quantiles."""

    targets: int
    output: str
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, data: DataSpec, output: str, quantiles: tuple[float, ...]) -> Head:
        """Return the head for the data's targets.

        Raises:
          ConfigError: an output that is not offered, or quantiles that are not between 0 and 1 and rising.
          DataError: data that is no windows.
        """
        word("output", output, OUTPUTS)
        if not quantiles or not all(low < high for low, high in itertools.pairwise((0.0, *quantiles, 1.0))):
            raise ConfigError(f"config.model.quantiles={quantiles}: expected rising numbers between 0 and 1")
        return cls(window_shape(data, "target")[1], output, quantiles)

    @nn.compact
    def __call__(self, x_BHD: Array) -> dict[str, Array]:
        """Return ``forecast`` [B, H, T].

        And for ``gaussian`` also ``mean``, the same, and ``log_variance``, both [B, H, T]; for ``quantile`` also
        ``quantiles`` [B, H, T, Q], the forecast being the one nearest to the median.
        """
        if self.output == "gaussian":
            mean_BHT, log_BHT = jnp.split(Dense(2 * self.targets, name="dense")(x_BHD), 2, axis=-1)
            return {"forecast": mean_BHT, "mean": mean_BHT, "log_variance": log_BHT}
        if self.output == "quantile":
            x_BHN = Dense(self.targets * len(self.quantiles), name="dense")(x_BHD)
            x_BHTQ = x_BHN.reshape(*x_BHD.shape[:2], self.targets, len(self.quantiles))
            middle = min(range(len(self.quantiles)), key=lambda place: abs(self.quantiles[place] - 0.5))
            return {"forecast": x_BHTQ[..., middle], "quantiles": x_BHTQ}
        return {"forecast": Dense(self.targets, name="dense")(x_BHD)}


def window_shape(data: DataSpec, field: str) -> tuple[int, int]:
    """Return steps and columns of a field of windows."""
    if field not in data.example or len(data.example[field].shape) != 2:
        raise DataError(
            f"the data has no field {field!r} of steps and columns, which the config's model needs; cut it into "
            f"windows by jaxlab.data.windows:make (it has {', '.join(data.example)})"
        )
    steps, columns = data.example[field].shape
    return steps, columns


class Known(nn.Module):
    """What the horizon's steps begin with: the step's number, and what is known of it if there is something."""

    horizon: int
    width: int

    @nn.compact
    def __call__(self, past_BLF: Array, future_BHK: Array | None) -> Array:
        """Return [B, H, D]."""
        step_HD = self.param("step", nn.initializers.normal(0.1), (self.horizon, self.width)).astype(past_BLF.dtype)
        if future_BHK is None:
            return jnp.broadcast_to(step_HD, (len(past_BLF), *step_HD.shape))
        return Dense(self.width, name="dense")(future_BHK) + step_HD


class Forecaster(nn.Module):
    """Recurrent layers over past and horizon, self-attention over both, and a head a step."""

    horizon: int
    reader: recurrent.Stack
    writer: recurrent.Stack
    attention: transformer.Stack
    head: Head
    dropout: float

    @nn.compact
    def __call__(self, past_BLF: Array, future_BHK: Array | None = None, *, train: bool) -> dict[str, Array]:
        """Return the results of `Head`.

        Args:
          past_BLF: inputs up to now.
          future_BHK: what is known of the horizon's steps; None for nothing.
          train: whether there is dropout.
        """
        x_BLD = Dense(self.reader.features, name="past")(past_BLF)
        x_BHD = Known(self.horizon, self.reader.features, name="future")(past_BLF, future_BHK)
        read_BLD, carries = self.reader(x_BLD, train=train)
        written_BHD, _ = self.writer(x_BHD, None, carries, train=train)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y_BTD = drop(jnp.concatenate([read_BLD, written_BHD], axis=1))
        y_BTD = nn.LayerNorm(name="norm")(y_BTD + jnp.concatenate([x_BLD, x_BHD], axis=1))
        return self.head(self.attention(y_BTD, train=train)[:, -self.horizon :])


def make(
    data: DataSpec,
    cell: str = "lstm",
    width: int = 64,
    layers: int = 1,
    attention_layers: int = 1,
    heads: int = 4,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    output: str = "point",
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
    forget_bias: float = 1.0,
) -> Forecaster:
    """Return the hybrid for the data's windows.

    Args:
      data: has the fields ``past`` and ``target``, and perhaps ``future``, as `jaxlab.data.windows` makes them.
      cell: ``lstm`` or ``gru``.
      width: of all layers.
      layers: recurrent ones.
      attention_layers: blocks of self-attention and feed-forward.
      heads: of the attention; must divide the width.
      dropout: between recurrent layers, of their result, and in the blocks.
      attention_dropout: of the attention's weights.
      output: ``point``, ``gaussian`` or ``quantile``; see `Head`.
      quantiles: for the latter, rising.
      forget_bias: of the LSTM's forget gate at the start.

    Raises:
      ConfigError: a value out of range, a word that is none of those, or heads that do not divide the width.
      DataError: data that is no windows.
    """
    within("width", width, 1)
    rate("dropout", dropout)
    window_shape(data, "past")
    horizon, _ = window_shape(data, "target")
    blocks = Layers(
        width=width, depth=attention_layers, heads=heads, is_causal=True, dropout=dropout,
        attention_dropout=attention_dropout,
    )  # fmt: skip
    reader, writer = (recurrent.Stack.of(cell, width, layers, False, dropout, forget_bias) for _ in range(2))
    head = Head.of(data, output, quantiles)
    return Forecaster(horizon, reader, writer, transformer.Stack(blocks), head, dropout)
