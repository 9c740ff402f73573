"""A variational autoencoder with a Gaussian code (Kingma & Welling 2013, arXiv 1312.6114, appendices B and C).

The decoder gives logits of pixels or means of numbers; which of both they are, the objective decides.
Shape letters: B batch, D numbers of the code, X an example's numbers, S samples.
Usage: ``spec("jaxlab.models.vae:make", width=8)`` with ``jaxlab.objectives.reconstruct:elbo``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import DataSpec
from jaxlab.models.autoencoder import Perceptron
from jaxlab.models.options import rate, within, word

LIKELIHOODS = ("bernoulli", "gaussian")


class VAE(nn.Module):
    """The decoder's hidden layers are the encoder's in reverse."""

    hidden: tuple[int, ...]
    width: int
    dropout: float
    shape: tuple[int, ...]

    def setup(self) -> None:
        self.encoder = Perceptron(self.hidden, 2 * self.width, self.dropout)
        self.decoder = Perceptron(self.hidden[::-1], math.prod(self.shape), self.dropout)

    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Return the code's ``mean`` and ``log_variance`` [B, D], and the ``reconstruction`` of one draw of it.

        In training each row has noise of its own (stream ``sample``); in evaluation all rows have the same, always, so
        that a row's result depends on that row alone. ``embedding`` is the mean. Means and variances are float32.
        """
        mean_BD, log_variance_BD = self.encode(x, train=train).values()
        if train:
            noise_BD = jax.random.normal(self.make_rng("sample"), mean_BD.shape)
        else:
            noise_BD = jax.random.normal(jax.random.key(0), (1, self.width))
        code_BD = mean_BD + jnp.exp(log_variance_BD / 2) * noise_BD
        reconstruction = self.decode(code_BD.astype(x.dtype), train=train)["reconstruction"]
        return {
            "reconstruction": reconstruction, "mean": mean_BD, "log_variance": log_variance_BD, "embedding": mean_BD,
        }  # fmt: skip

    def encode(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Return ``mean`` and ``log_variance`` [B, D] float32."""
        both_BD = self.encoder(x.reshape(x.shape[0], -1), train).astype(jnp.float32)
        mean_BD, log_variance_BD = jnp.split(both_BD, 2, axis=-1)
        return {"mean": mean_BD, "log_variance": log_variance_BD}

    def decode(self, code_BD: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Return the ``reconstruction`` [B, ...] of codes."""
        return {"reconstruction": self.decoder(code_BD, train).reshape(-1, *self.shape)}

    def log_likelihood(
        self,
        x: jax.Array,
        *,
        train: bool,
        samples: int = 64,
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        seed: int = 0,
    ) -> dict[str, jax.Array]:
        """Return ``log_likelihood`` [B], estimated from below by importance weighting (Burda et al. 2015, eq. 8).

        Args:
          x: [B, ...]; for ``bernoulli`` numbers from 0 to 1.
          train: whether dropout acts.
          samples: draws S a row; in expectation the estimate rises with them, to log p(x).
          likelihood: ``bernoulli`` of logits, or ``gaussian`` around means.
          sigma: the latter's standard deviation.
          seed: of the draws, which are the same for all rows.

        Raises:
          ConfigError: no such likelihood, or no samples.
        """
        word("likelihood", likelihood, LIKELIHOODS)
        within("samples", samples, 1)
        mean_BD, log_variance_BD = self.encode(x, train=train).values()
        noise_SD = jax.random.normal(jax.random.key(seed), (samples, self.width))
        code_SBD = mean_BD + jnp.exp(log_variance_BD / 2) * noise_SD[:, None]
        y_SBX = self.decoder(code_SBD.astype(x.dtype), train).astype(jnp.float32)
        x_BX = x.reshape(x.shape[0], -1)
        if likelihood == "bernoulli":
            terms_SBX = x_BX * jax.nn.log_sigmoid(y_SBX) + (1 - x_BX) * jax.nn.log_sigmoid(-y_SBX)
        else:
            terms_SBX = -jnp.square((x_BX - y_SBX) / sigma) / 2 - math.log(sigma * math.sqrt(2 * math.pi))
        # log p(z) - log q(z | x); what both have of 2 pi cancels
        prior_SB = jnp.sum(jnp.square(noise_SD)[:, None] - jnp.square(code_SBD) + log_variance_BD, axis=-1) / 2
        weights_SB = jnp.sum(terms_SBX, axis=-1) + prior_SB
        return {"log_likelihood": jax.nn.logsumexp(weights_SB, axis=0) - math.log(samples)}


def make(
    data: DataSpec,
    field: str = "image",
    hidden: tuple[int, ...] = (256,),
    width: int = 16,
    dropout: float = 0.0,
) -> VAE:
    """Return a variational autoencoder for examples of any shape.

    Args:
      data: has the field.
      field: what is encoded, the model's only input.
      hidden: widths of the encoder's layers before the code; the decoder has them in reverse.
      width: numbers of the code.
      dropout: after each hidden layer.

    Raises:
      ConfigError: no such field, or a number that cannot be.
    """
    word("field", field, tuple(data.example))
    for name, value in (*(("hidden", layer) for layer in hidden), ("width", width)):
        within(name, value, 1)
    rate("dropout", dropout)
    return VAE(hidden, width, dropout, tuple(data.example[field].shape))
