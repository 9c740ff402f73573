"""A model of a few numbers whose every text can be enumerated, with the same in float64 NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

EOS = 1
TRACED, READ = [], []  # one entry a time that the model is traced, and that it really reads a token


@dataclasses.dataclass(frozen=True)
class Toy:
    """Logits of a state that every token moves; input: the first state [B, H]."""

    counts: bool = False

    def begin(self, variables, max_length, state_BH):
        TRACED.append(max_length)
        return state_BH @ variables["read"], state_BH

    def step(self, variables, carry, token_B):
        if self.counts:
            jax.debug.callback(lambda token_B: READ.append(np.asarray(token_B).tolist()), token_B)
        state_BH = jnp.tanh(carry @ variables["move"] + variables["write"][token_B])
        return state_BH @ variables["read"], state_BH

    def take(self, carry, rows_N):
        return carry[rows_N]


@dataclasses.dataclass(frozen=True)
class Script:
    """Logits that are given beforehand, whatever is written; input: [B, T, V]."""

    def begin(self, variables, max_length, logits_BTV):
        return logits_BTV[:, 0], (jnp.array(0), logits_BTV)

    def step(self, variables, carry, token_B):
        place, logits_BTV = carry[0] + 1, carry[1]
        return logits_BTV[:, place], (place, logits_BTV)

    def take(self, carry, rows_N):
        return carry[0], carry[1][rows_N]


def toy_of(seed, rows=4, vocabulary_size=5, features=6, scale=1.5):
    """Return the variables of a random model and first states of some rows."""
    random = np.random.default_rng(seed)
    shapes = {"move": (features, features), "write": (vocabulary_size, features), "read": (features, vocabulary_size)}
    variables = {name: random.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    return variables, (random.normal(0, 1, (rows, features)).astype(np.float32),)


def log_probabilities(variables, state_H, text):
    """Return those of every token [V] after the text, in float64."""
    variables = {name: value.astype(np.float64) for name, value in variables.items()}
    state_H = state_H.astype(np.float64)
    for token in text:
        state_H = np.tanh(state_H @ variables["move"] + variables["write"][token])
    logits_V = state_H @ variables["read"]
    return logits_V - np.log(np.exp(logits_V - logits_V.max()).sum()) - logits_V.max()


def norm(length, penalty):
    return ((5 + length) / 6) ** penalty


def all_texts(variables, state_H, length, penalty):
    """Return the score and the tokens of every text that ends with EOS or after `length` tokens, best first."""
    found = itertools.product(range(variables["read"].shape[1]), repeat=length)
    scores = {}
    for text in {text[: text.index(EOS) + 1] if EOS in text else text for text in found}:
        gains = [log_probabilities(variables, state_H, text[:place])[token] for place, token in enumerate(text)]
        scores[text] = sum(gains) / norm(len(text), penalty)
    return sorted(((score, text) for text, score in scores.items()), reverse=True)


def textbook_beam(variables, state_H, length, width, penalty):
    """Return the best text and its score by beam search with lists, which never ends early and keeps no greedy text."""
    beam, ended = [(0.0, ())], []
    for _ in range(length):
        extended = []
        for score, text in beam:
            gain_V = log_probabilities(variables, state_H, text)
            extended += [(score + gain, (*text, token)) for token, gain in enumerate(gain_V)]
        extended.sort(reverse=True)
        ended += [(score / norm(len(text), penalty), text) for score, text in extended[:width] if text[-1] == EOS]
        beam = [(score, text) for score, text in extended if text[-1] != EOS][:width]
    return max(ended + [(score / norm(length, penalty), text) for score, text in beam])
