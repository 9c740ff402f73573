"""How each family of models goes on with a text, token by token: what `generate` and `beam` know of a model.

Everything is said by three pure functions over a carry, so that another model of yours needs a class of three methods
and no more. Adapters of one model are equal, so that it is compiled once; a model made anew is another one.
Shape letters: B rows, N rows taken from them, P tokens of a prompt, S slots or source tokens, T tokens, V vocabulary.
Usage: ``greedy(Cached(model), {"params": params}, (prompt_BP, prompt_mask_BP), max_length=20, eos=2)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, PyTree
from jaxlab.models.decoder import Decoder
from jaxlab.models.encoder_decoder import EncoderDecoder
from jaxlab.models.lstm import Language
from jaxlab.models.seq2seq_lstm import Seq2Seq
from jaxlab.models.slots import take_rows


class Continuation(Protocol):
    """A model that goes on with B texts at once; hashable, as compiled functions are kept by it.

    Prompts of different lengths are padded to P tokens on either side, with a mask [B, P] that is 1 at tokens: padding
    changes no text. A row without any token has a text that means nothing.
    """

    def begin(self, variables: PyTree, max_length: int, *inputs: Array | None) -> tuple[Array, PyTree]:
        """Read the inputs; return the logits [B, V] of the first new token, and what to carry on.

        At most `max_length` tokens are to be written; a ConfigError where the model has no room for them.
        """

    def step(self, variables: PyTree, carry: PyTree, token_B: Array) -> tuple[Array, PyTree]:
        """Return the logits [B, V] of the token after `token_B`, and what to carry on."""

    def take(self, carry: PyTree, rows_N: Array) -> PyTree:
        """Return the carry of the given rows, which may repeat."""


class _KeepsCache:
    """How a model that carries its cache goes on."""

    model: Decoder | EncoderDecoder

    def step(self, variables: PyTree, carry: PyTree, token_B: Array) -> tuple[Array, PyTree]:
        """Read one token."""
        variables = {**variables, "cache": carry}
        outputs, changed = self.model.apply(variables, token_B[:, None], method="decode", mutable=["cache"])
        return outputs["logits"][:, 0], changed["cache"]

    def take(self, carry: PyTree, rows_N: Array) -> PyTree:
        """Return these rows of the cache."""
        return take_rows(carry, rows_N)


@dataclasses.dataclass(frozen=True)
class Cached(_KeepsCache):
    """A decoder with its cache of keys and values. Inputs: prompt [B, P] and, None for all tokens, its mask [B, P]."""

    model: Decoder

    def begin(
        self, variables: PyTree, max_length: int, prompt_BP: Array, mask_BP: Array | None = None
    ) -> tuple[Array, PyTree]:
        """Read the prompt in one call."""
        capacity = _capacity(prompt_BP, max_length, self.model.max_length)
        outputs, cache = self.model.apply(
            variables, prompt_BP, mask_BP, method="decode", capacity=capacity, mutable=["cache"]
        )
        return _last(outputs["logits"], mask_BP), cache["cache"]


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """A decoder without a cache, which reads all tokens again at each: slow, and what `Cached` must agree with.

    Inputs as those of `Cached`.
    """

    model: Decoder

    def begin(
        self, variables: PyTree, max_length: int, prompt_BP: Array, mask_BP: Array | None = None
    ) -> tuple[Array, PyTree]:
        """Read the prompt, and keep it with room for what is to come."""
        room = _capacity(prompt_BP, max_length, self.model.max_length) - prompt_BP.shape[1]
        real_BP = jnp.ones(prompt_BP.shape, jnp.int32) if mask_BP is None else (mask_BP > 0).astype(jnp.int32)
        tokens_BS, real_BS = (jnp.pad(x, ((0, 0), (0, room))) for x in (jnp.asarray(prompt_BP), real_BP))
        logits_BSV = self._logits(variables, tokens_BS, real_BS)
        return _last(logits_BSV, real_BS), (tokens_BS, real_BS, jnp.array(prompt_BP.shape[1], jnp.int32))

    def step(self, variables: PyTree, carry: PyTree, token_B: Array) -> tuple[Array, PyTree]:
        """Write one token, and read all."""
        tokens_BS, real_BS, slot = carry
        tokens_BS = tokens_BS.at[:, slot].set(token_B)
        real_BS = real_BS.at[:, slot].set(1)
        return self._logits(variables, tokens_BS, real_BS)[:, slot], (tokens_BS, real_BS, slot + 1)

    def take(self, carry: PyTree, rows_N: Array) -> PyTree:
        """Return these rows of the tokens so far."""
        tokens_BS, real_BS, slot = carry
        return tokens_BS[rows_N], real_BS[rows_N], slot

    def _logits(self, variables: PyTree, tokens_BS: Array, real_BS: Array) -> Array:
        positions_BS = jnp.maximum(jnp.cumsum(real_BS, axis=1) - 1, 0)
        return self.model.apply(variables, tokens_BS, real_BS, positions_BS, train=False)["logits"]


@dataclasses.dataclass(frozen=True)
class Translator(_KeepsCache):
    """An encoder-decoder with its cache, which holds the source's keys and values as well.

    Inputs: source [B, S], its mask or None, the target's beginning [B, P] (mostly ``bos`` alone), its mask or None.
    """

    model: EncoderDecoder

    def begin(
        self,
        variables: PyTree,
        max_length: int,
        source_BS: Array,
        source_mask_BS: Array | None,
        prompt_BP: Array,
        mask_BP: Array | None = None,
    ) -> tuple[Array, PyTree]:
        """Read the source, and the target's beginning in one call."""
        capacity = _capacity(prompt_BP, max_length, self.model.max_length)
        memory_BSD = self.model.apply(variables, source_BS, source_mask_BS, method="encode")["hidden"]
        outputs, cache = self.model.apply(
            variables, prompt_BP, mask_BP, memory_BSD, source_mask_BS, method="decode", capacity=capacity,
            mutable=["cache"],
        )  # fmt: skip
        return _last(outputs["logits"], mask_BP), cache["cache"]


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """A recurrent language model. Inputs as those of `Cached`; there is no limit to the length."""

    model: Language

    def begin(
        self, variables: PyTree, max_length: int, prompt_BP: Array, mask_BP: Array | None = None
    ) -> tuple[Array, PyTree]:
        """Read the prompt by steps."""
        _, shapes = jax.eval_shape(lambda: self.step(variables, None, jnp.asarray(prompt_BP)[:, 0]))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return _read(lambda carry, token_B: self.step(variables, carry, token_B), nothing, prompt_BP, mask_BP)

    def step(self, variables: PyTree, carry: PyTree, token_B: Array) -> tuple[Array, PyTree]:
        """Read one token."""
        return self.model.apply(variables, carry, token_B, method="decode_step")

    def take(self, carry: PyTree, rows_N: Array) -> PyTree:
        """Return these rows of the layers' states."""
        return jax.tree.map(lambda leaf: leaf[rows_N], carry)


@dataclasses.dataclass(frozen=True)
class RecurrentTranslator:
    """The recurrent model from source to target. Inputs as those of `Translator`; no limit to the length."""

    model: Seq2Seq

    def begin(
        self,
        variables: PyTree,
        max_length: int,
        source_BS: Array,
        source_mask_BS: Array | None,
        prompt_BP: Array,
        mask_BP: Array | None = None,
    ) -> tuple[Array, PyTree]:
        """Read the source, and the target's beginning by steps."""
        carry = self.model.apply(variables, source_BS, source_mask_BS, method="encode")
        return _read(lambda carry, token_B: self.step(variables, carry, token_B), carry, prompt_BP, mask_BP)

    def step(self, variables: PyTree, carry: PyTree, token_B: Array) -> tuple[Array, PyTree]:
        """Read one token of the target."""
        return self.model.apply(variables, carry, token_B, method="decode_step")

    def take(self, carry: PyTree, rows_N: Array) -> PyTree:
        """Return these rows of the source's and the layers' states."""
        return jax.tree.map(lambda leaf: leaf[rows_N], carry)


def _capacity(prompt_BP: Array, max_length: int, positions: int) -> int:
    """Return how many tokens the model will read: all but the last one that is written."""
    capacity = prompt_BP.shape[1] + max_length - 1
    if capacity > positions:
        raise ConfigError(
            f"max_length={max_length}: expected {positions - prompt_BP.shape[1] + 1} or less after a prompt of "
            f"{prompt_BP.shape[1]} tokens with its padding, as config.model.max_length={positions}"
        )
    return capacity


def _last(logits_BTV: Array, mask_BT: Array | None) -> Array:
    """Return the logits [B, V] at each row's last token."""
    if mask_BT is None:
        return logits_BTV[:, -1]
    place_BT = jnp.where(mask_BT > 0, jnp.arange(mask_BT.shape[1]), 0)
    return jnp.take_along_axis(logits_BTV, place_BT.max(axis=1)[:, None, None], axis=1)[:, 0]


def _read(
    step: Callable[[PyTree, Array], tuple[Array, PyTree]], carry: PyTree, prompt_BP: Array, mask_BP: Array | None
) -> tuple[Array, PyTree]:
    """Return the logits [B, V] after each row's last token, and the carry; padded steps leave both as they are."""
    tokens_PB = jnp.asarray(prompt_BP).T
    real_PB = jnp.ones(tokens_PB.shape, bool) if mask_BP is None else jnp.asarray(mask_BP).T > 0
    shapes = jax.eval_shape(step, carry, tokens_PB[0])
    carry = jax.tree.map(
        lambda leaf, to: leaf.astype(to.dtype), carry, shapes[1]
    )  # a state may begin in half precision

    def read(state: PyTree, column: tuple[Array, Array]) -> tuple[PyTree, None]:
        token_B, real_B = column

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(real_B.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(keep, step(state[1], token_B), state), None

    nothing = jnp.zeros(shapes[0].shape, shapes[0].dtype)
    state, _ = jax.lax.scan(read, (nothing, carry), (tokens_PB, real_PB))
    return state
