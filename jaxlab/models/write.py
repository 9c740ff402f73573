"""What `evaluate` lets a model write for each example: the factories that ``config.generate`` names.

Which adapter of `jaxlab.models.continuation` fits is told by the model's class. A model of your own class writes by a
function of your own with the contract `jaxlab.core.types.Generate`. Knows no objective and no metric.
Shape letters: B rows, S source tokens, T tokens of a row, P of a prompt, L written ones.
Usage: ``config.generate = spec("jaxlab.models.write:translate", width=4)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Array, Batch, DataSpec, Generate, Outputs, PyTree
from jaxlab.models.beam import beam_search
from jaxlab.models.continuation import Cached, Continuation, Recurrent, RecurrentTranslator, Translator
from jaxlab.models.decoder import Decoder
from jaxlab.models.encoder_decoder import EncoderDecoder
from jaxlab.models.generate import check, row_keys, sample
from jaxlab.models.lstm import Language
from jaxlab.models.seq2seq_lstm import Seq2Seq

_Adapters = Mapping[type, Callable[[Any], Continuation]]
_TRANSLATE: _Adapters = {EncoderDecoder: Translator, Seq2Seq: RecurrentTranslator}
_CONTINUE: _Adapters = {Decoder: Cached, Language: Recurrent}


def translate(
    data: DataSpec,
    width: int = 4,
    max_length: int = 0,
    length_penalty: float = 0.6,
    source: str = "source",
    source_mask: str = "source_mask",
    target: str = "target",
    begin: str = "bos",
    end: str = "eos",
) -> Generate:
    """Return what writes a target for each source by beam search; Vaswani et al. 2017 used this width and penalty.

    The result ``generated`` int32 [B, L] holds the new tokens, `end` included, then padding; in padded rows it is all
    padding.

    Args:
      data: its fact ``specials`` gives the ids; see `jaxlab.data.tokenize`.
      width: how many texts are open at once; 1 is greedy decoding but for the penalty, which then changes nothing.
      max_length: L, the most tokens to write, `end` included; 0 for as many as the field `target` has.
      length_penalty: see `jaxlab.models.beam`.
      source: the field of source tokens [B, S].
      source_mask: the field that is 1 at real source tokens; without such a field all are real.
      target: the field whose length is meant by a `max_length` of 0.
      begin: the special token that a target begins with.
      end: the one that ends it; empty for none.

    Raises:
      ConfigError: an option out of its range, a field or special token that the data does not have.
      DataError: the data was not tokenised.
    """
    _check_fields(data, source, *(() if max_length else (target,)))
    masked = _has_field(data, source_mask, "source_mask")
    length = max_length or data.example[target].shape[0]
    check("config.generate.max_length", max_length, length >= 1, "1 or more, or 0 for the target's")
    check("config.generate.width", width, width >= 1, "1 or more")
    check("config.generate.length_penalty", length_penalty, 0 <= length_penalty < float("inf"), "0 or more")
    first, last, pad = _special(data, begin), _special(data, end) if end else -1, _special(data, "pad")

    def generate(module: Any, variables: PyTree, batch: Batch) -> Outputs:
        source_BS = batch[source]
        begin_B1 = jnp.full((source_BS.shape[0], 1), first, jnp.int32)
        inputs = (source_BS, batch[source_mask] if masked else None, begin_B1)
        texts = beam_search(
            _adapter(_TRANSLATE, module), variables, inputs, max_length=length, width=width, eos=last, pad=pad,
            length_penalty=length_penalty,
        )  # fmt: skip
        return {"generated": _of_real_rows(texts.tokens[:, 0], batch, pad)}

    return generate


def continue_text(
    data: DataSpec,
    prompt: int = 32,
    max_length: int = 64,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    tokens: str = "tokens",
    token_mask: str = "token_mask",
    end: str = "eos",
) -> Generate:
    """Return what goes on with the first `prompt` tokens of each row, which is read as one text.

    Results: ``generated`` int32 [B, L], the new tokens and then padding; ``rest`` int32 [B, T - P], how the row itself
    goes on, padded, to compare with: ``spec("jaxlab.metrics.text:bleu", reference="rest", weight="")``.

    Args:
      data: its fact ``specials`` gives the ids.
      prompt: P, the tokens of a row that the model is given; a shorter row gives all it has.
      max_length: L, the most tokens to write, `end` included.
      temperature: 0 writes the likeliest token, above it tokens are drawn; see `jaxlab.models.generate.sample`.
      top_k: how many tokens may be drawn; 0 for all.
      top_p: share of the probability that the tokens which may be drawn must reach; 1 for all.
      seed: of the draws; a row's depend on it and on the example's id alone.
      tokens: the field of token ids [B, T].
      token_mask: the field that is 1 at real tokens; without such a field all are real.
      end: the special token that ends a text; empty for none.

    Raises:
      ConfigError: an option out of its range, a field or special token that the data does not have.
      DataError: the data was not tokenised.
    """
    _check_fields(data, tokens)
    masked, length = _has_field(data, token_mask, "token_mask"), data.example[tokens].shape[0]
    check("config.generate.prompt", prompt, 1 <= prompt < length, f"1 to {length - 1}, as rows have {length} tokens")
    check("config.generate.max_length", max_length, max_length >= 1, "1 or more")
    check("config.generate.temperature", temperature, 0 <= temperature < float("inf"), "0 or more")
    check("config.generate.top_k", top_k, top_k >= 0, "1 or more, or 0 for all tokens")
    check("config.generate.top_p", top_p, 0 < top_p <= 1, "above 0 and up to 1")
    last, pad = _special(data, end) if end else -1, _special(data, "pad")

    def generate(module: Any, variables: PyTree, batch: Batch) -> Outputs:
        token_BT = batch[tokens]
        real_BT = batch[token_mask] > 0 if masked else jnp.ones(token_BT.shape, bool)
        texts = sample(
            _adapter(_CONTINUE, module), variables, (token_BT[:, :prompt], real_BT[:, :prompt]),
            row_keys(jax.random.key(seed), batch["id"]), max_length=max_length, eos=last, pad=pad,
            temperature=temperature, top_k=top_k, top_p=top_p,
        )  # fmt: skip
        rest = jnp.where(real_BT, token_BT, pad)[:, prompt:]
        return {"generated": _of_real_rows(texts.tokens, batch, pad), "rest": _of_real_rows(rest, batch, pad)}

    return generate


def _adapter(adapters: _Adapters, module: Any) -> Continuation:
    """Return how this model goes on with a text."""
    for kind, adapter in adapters.items():
        if isinstance(module, kind):
            return adapter(module)
    known = ", ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in adapters)
    raise ConfigError(
        f"config.generate: config.model is a {type(module).__module__}.{type(module).__qualname__}; expected {known}, "
        "or a function of your own that writes with yours"
    )


def _of_real_rows(token_BL: Array, batch: Batch, pad: int) -> Array:
    return jnp.where(batch["mask"][:, None] > 0, token_BL, pad).astype(jnp.int32)


def _special(data: DataSpec, name: str) -> int:
    specials = data.meta.get("specials")
    if not specials:
        raise DataError(
            "config.generate: the data has no fact 'specials', the ids of special tokens; tokenise it, as by "
            f"jaxlab.data.tokenize:byte (it has {', '.join(data.meta) or 'no facts'})"
        )
    if name not in specials:
        raise ConfigError(f"config.generate: the tokenizer has no special token {name!r}{did_you_mean(name, specials)}")
    return int(specials[name])


def _check_fields(data: DataSpec, *names: str) -> None:
    for name in names:
        if name not in data.example:
            raise ConfigError(f"config.generate: the data has no field {name!r}{did_you_mean(name, data.example)}")


def _has_field(data: DataSpec, name: str, usual: str) -> bool:
    """Return whether the data has an optional field; one that was given another name than the `usual` has to exist."""
    if name and name != usual:
        _check_fields(data, name)
    return name in data.example
