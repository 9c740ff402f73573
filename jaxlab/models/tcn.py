"""Temporal convolutional networks: dilated causal convolutions in residual blocks.

Bai et al. 2018 (arXiv 1803.01271), section 3: in block i both convolutions have dilation 2^i, each followed by ReLU and
a dropout of whole channels; weights are normalised (Salimans & Kingma 2016, arXiv 1602.07868) if wanted.
Shape letters: B batch, T steps, L steps of past, H of horizon, K the kernel's taps, C channels in, F channels out.
Usage: ``config.model = spec("jaxlab.models.tcn:make", channels=(32,) * 6, kernel=3)``.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.forecast import Head, Known, window_shape
from jaxlab.models.options import rate, vocabulary, within


def receptive_field(kernel: int, levels: int) -> int:
    """Return how many steps, itself included, a result of `levels` blocks depends on."""
    return 1 + 2 * (kernel - 1) * (2**levels - 1)


class CausalConvolution(nn.Module):
    """A convolution whose taps lie `dilation` steps apart, the last one on the step itself."""

    features: int
    kernel: int
    dilation: int
    weight_norm: bool

    @nn.compact
    def __call__(self, x_BTC: Array) -> Array:
        """Return [B, T, F]; before the first step there are zeros.

        As one product of the taps side by side, which on the CPU is several times faster than XLA's convolution.
        """
        steps = x_BTC.shape[1]
        shape = (self.kernel, x_BTC.shape[-1], self.features)
        kernel_KCF = self.param("kernel", nn.initializers.he_normal(), shape)
        if self.weight_norm:
            norm_F = jnp.sqrt(jnp.sum(jnp.square(kernel_KCF.astype(jnp.float32)), axis=(0, 1)))
            scale_F = self.param("scale", lambda _: norm_F)
            kernel_KCF = kernel_KCF * (scale_F / norm_F).astype(kernel_KCF.dtype)
        bias_F = self.param("bias", nn.initializers.zeros, (self.features,))
        x_BTC = jnp.pad(x_BTC, ((0, 0), ((self.kernel - 1) * self.dilation, 0), (0, 0)))
        taps = [x_BTC[:, tap * self.dilation : tap * self.dilation + steps] for tap in range(self.kernel)]
        return jnp.concatenate(taps, axis=-1) @ kernel_KCF.reshape(-1, self.features) + bias_F


class Block(nn.Module):
    """Two convolutions beside a shortcut, which has a projection where the width changes."""

    features: int
    kernel: int
    dilation: int
    weight_norm: bool
    dropout: float

    @nn.compact
    def __call__(self, x_BTC: Array, *, train: bool) -> Array:
        """Return ``relu(shortcut + residual)`` [B, T, F]."""
        y_BTF = x_BTC
        for place in range(2):
            convolution = CausalConvolution(
                self.features, self.kernel, self.dilation, self.weight_norm, name=f"convolution_{place}"
            )
            y_BTF = nn.relu(convolution(y_BTF))
            y_BTF = nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)(y_BTF)
        if x_BTC.shape[-1] != self.features:
            x_BTC = Dense(self.features, name="shortcut")(x_BTC)
        return nn.relu(x_BTC + y_BTF)


class TCN(nn.Module):
    """Blocks whose dilation doubles from one to the next."""

    channels: tuple[int, ...]
    kernel: int
    weight_norm: bool
    dropout: float

    @nn.compact
    def __call__(self, x_BTC: Array, *, train: bool) -> Array:
        """Return [B, T, F], each step of itself and those before it."""
        for level, width in enumerate(self.channels):
            block = Block(width, self.kernel, 2**level, self.weight_norm, self.dropout, name=f"block_{level}")
            x_BTC = block(x_BTC, train=train)
        return x_BTC


class Forecaster(nn.Module):
    """A TCN over the past and what is known of the horizon, and a head a step of the horizon."""

    horizon: int
    network: TCN
    head: Head

    @nn.compact
    def __call__(self, past_BLF: Array, future_BHK: Array | None = None, *, train: bool) -> dict[str, Array]:
        """Return the results of `jaxlab.models.forecast.Head`, and take the arguments of its `Forecaster`."""
        width = self.network.channels[0]
        x_BLC = Dense(width, name="past")(past_BLF)
        x_BHC = Known(self.horizon, width, name="future")(past_BLF, future_BHK)
        y_BTF = self.network(jnp.concatenate([x_BLC, x_BHC], axis=1), train=train)
        return self.head(y_BTF[:, -self.horizon :])


class Classifier(nn.Module):
    """A TCN whose last real step gives one output a class."""

    vocabulary_size: int
    classes: int
    network: TCN

    @nn.compact
    def __call__(self, x: Array, mask_BT: Array | None = None, *, train: bool) -> dict[str, Array]:
        """Return ``logits`` [B, classes].

        Args:
          x: ids [B, T], or numbers [B, T, C].
          mask_BT: 1 a step, 0 padding, which comes last; None for all steps.
          train: whether there is dropout.
        """
        width = self.network.channels[0]
        x_BTC = nn.Embed(self.vocabulary_size, width, name="embedding")(x) if self.vocabulary_size else x
        if mask_BT is not None:
            x_BTC = jnp.where((mask_BT > 0)[..., None], x_BTC, 0)
        y_BTF = self.network(x_BTC, train=train)
        last_B = jnp.full(len(y_BTF), y_BTF.shape[1] - 1) if mask_BT is None else _last(mask_BT)
        y_BF = jnp.take_along_axis(y_BTF, last_B[:, None, None], axis=1)[:, 0]
        return {"logits": Dense(self.classes, name="head")(y_BF)}


def _last(mask_BT: Array) -> Array:
    """Return the place of each row's last real step; 0 of a row that has none."""
    return jnp.max(jnp.where(mask_BT > 0, jnp.arange(mask_BT.shape[1]), 0), axis=1)


def make(
    data: DataSpec,
    channels: tuple[int, ...] = (32, 32, 32, 32, 32, 32),
    kernel: int = 3,
    weight_norm: bool = True,
    dropout: float = 0.1,
    output: str = "point",
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
) -> Forecaster:
    """Return a forecaster for the data's windows.

    Args:
      data: has the fields ``past`` and ``target``, and perhaps ``future``, as `jaxlab.data.windows` makes them.
      channels: each block's width; their number n gives the receptive field, 1 + 2 (kernel - 1) (2^n - 1) steps.
      kernel: taps of each convolution.
      weight_norm: whether kernels are a direction times a length.
      dropout: of whole channels, after each convolution.
      output: ``point``, ``gaussian`` or ``quantile``; see `jaxlab.models.forecast.Head`.
      quantiles: for the latter, rising.

    Raises:
      ConfigError: a value out of range, or a receptive field that does not reach from the horizon's end to the past.
      DataError: data that is no windows.
    """
    network = _network(channels, kernel, weight_norm, dropout)
    length, _ = window_shape(data, "past")
    horizon, _ = window_shape(data, "target")
    if receptive_field(kernel, len(channels)) <= horizon:
        levels = next(n for n in range(1, 64) if receptive_field(kernel, n) >= length + horizon)
        raise ConfigError(
            f"config.model.channels={channels}: the last of {horizon} steps would see nothing of the past, as a result "
            f"depends on {receptive_field(kernel, len(channels))} steps; did you mean {levels} channels, for the whole "
            f"window of {length + horizon}?"
        )
    return Forecaster(horizon, network, Head.of(data, output, quantiles))


def classify(
    data: DataSpec,
    vocabulary_size: int = 0,
    channels: tuple[int, ...] = (32, 32, 32, 32, 32, 32),
    kernel: int = 3,
    weight_norm: bool = True,
    dropout: float = 0.1,
) -> Classifier:
    """Return a classifier of sequences with one output a class of the data; options beside these as those of `make`.

    Args:
      data: its ``classes``; if it states a ``vocabulary_size``, the sequences are ids, else numbers.
      vocabulary_size: 0 for the data's; more is allowed.
      channels: each block's width.
      kernel: taps of each convolution.
      weight_norm: whether kernels are a direction times a length.
      dropout: of whole channels, after each convolution.

    Raises:
      ConfigError: a value out of range.
    """
    size = vocabulary(data, vocabulary_size) if vocabulary_size or data.meta.get("vocabulary_size") else 0
    return Classifier(size, len(data.classes), _network(channels, kernel, weight_norm, dropout))


def _network(channels: tuple[int, ...], kernel: int, weight_norm: bool, dropout: float) -> TCN:
    within("kernel", kernel, 2)
    rate("dropout", dropout)
    if not channels or min(channels) < 1:
        raise ConfigError(f"config.model.channels={channels}: expected a width of 1 or more for each block")
    return TCN(channels, kernel, weight_norm, dropout)
