"""LSTM and GRU: PyTorch's results and gradients, the plain loop's, lengths that padding does not change, and texts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.models import lstm
from jaxlab.models.recurrent import GRU, LSTM, Stack, length_mask, orthogonal_gates
from jaxlab.models.recurrent_scan import gru_scan, lstm_scan

B, T, D, H = 4, 6, 3, 5
LENGTHS = np.array([6, 4, 1, 2])
CELLS = {"lstm": LSTM, "gru": GRU}
each_cell = pytest.mark.parametrize("cell", CELLS)
each_way = pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def stack_of(cell, both=False, layers=2, dropout=0.0):
    return Stack(CELLS[cell], H, layers, both, dropout, 1.0)


@functools.cache
def variables_of(cell, both=False, layers=2, width=D):
    """Return parameters that are nowhere zero, biases included."""
    model = stack_of(cell, both, layers)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1, width)), train=False))
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda x: generator.normal(0, 0.5, x.shape).astype(np.float32), shapes)


@functools.cache
def run(cell, both=False, layers=2):
    """Return the compiled function from (variables, x, mask) to the states and carries."""
    return jax.jit(lambda variables, x, mask: stack_of(cell, both, layers).apply(variables, x, mask, train=False))


def torch_twin(torch, cell, variables, both):
    """Return PyTorch's layers with our weights: transposed, and with our one bias as the first of its two."""
    twin = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](D, H, 2, batch_first=True, bidirectional=both)
    for direction in ("forward", "backward")[: 1 + both]:
        for place in range(2):
            ours = variables["params"][f"{direction}_{place}"]
            suffix = f"l{place}" + ("_reverse" if direction == "backward" else "")
            hidden_bias = np.zeros_like(ours["input"]["bias"])
            if cell == "gru":
                hidden_bias[2 * H :] = ours["recurrent_bias"]
            weights = {"weight_ih": ours["input"]["kernel"].T, "weight_hh": ours["recurrent_kernel"].T,
                       "bias_ih": ours["input"]["bias"], "bias_hh": hidden_bias}  # fmt: skip
            for name, value in weights.items():
                getattr(twin, f"{name}_{suffix}").data = torch.tensor(np.ascontiguousarray(value))
    return twin


@each_cell
@each_way
@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
def test_states_carries_and_gradients_are_pytorchs_with_the_same_weights(cell, both, packed):
    torch = pytest.importorskip("torch")
    variables, x, weight = variables_of(cell, both), normal(B, T, D), normal(B, T, (1 + both) * H, seed=2)
    mask = length_mask(LENGTHS, T) if packed else None

    @jax.jit
    def ours(variables, x):
        def score(variables, x):
            y, carries = stack_of(cell, both).apply(variables, x, mask, train=False)
            return jnp.sum(y * weight) + sum(jnp.sum(jnp.square(part)) for carry in carries for part in carry), (
                y, [carry[0] for carry in carries],
            )  # fmt: skip

        return jax.grad(score, argnums=(0, 1), has_aux=True)(variables, x)

    (gradient, x_gradient), (y, lasts) = ours(variables, x)
    twin, torch_x = torch_twin(torch, cell, variables, both), torch.tensor(x, requires_grad=True)
    rnn = torch.nn.utils.rnn
    given = rnn.pack_padded_sequence(torch_x, LENGTHS, True, enforce_sorted=False) if packed else torch_x
    out, state = twin(given)
    out = rnn.pad_packed_sequence(out, batch_first=True, total_length=T)[0] if packed else out
    states = state if cell == "lstm" else (state,)
    (torch.sum(out * torch.tensor(weight)) + sum(torch.sum(part**2) for part in states)).backward()
    np.testing.assert_allclose(y, out.detach(), atol=1e-5)
    np.testing.assert_allclose(np.stack(lasts), states[0].detach(), atol=1e-5)
    np.testing.assert_allclose(x_gradient, torch_x.grad, atol=1e-5)
    for direction in ("forward", "backward")[: 1 + both]:
        for place in range(2):
            found, suffix = gradient["params"][f"{direction}_{place}"], f"l{place}{'_reverse' * (direction[0] == 'b')}"
            expected = {name: getattr(twin, f"{name}_{suffix}").grad.numpy()
                        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
            for one, other in ((found["input"]["kernel"].T, expected["weight_ih"]),
                               (found["recurrent_kernel"].T, expected["weight_hh"]),
                               (found["input"]["bias"], expected["bias_ih"])):  # fmt: skip
                np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(other).max()))
            if cell == "gru":
                np.testing.assert_allclose(found["recurrent_bias"], expected["bias_hh"][2 * H :], atol=1e-4)


def plain_lstm(reverse, x_TBG, kernel, h, c, mask):
    def step(carry, at):
        (h, c), (x, mask) = carry, at
        i, f, g, o = jnp.split(x + h @ kernel, 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
        h, c = jnp.where(mask, new_h, h), jnp.where(mask, new_c, c)
        return (h, c), h

    (h, c), y = jax.lax.scan(step, (h, c), (x_TBG, mask), reverse=reverse)
    return y, h, c


def plain_gru(reverse, x_TBG, kernel, bias, h, mask):
    def step(h, at):
        x, mask = at
        (xr, xz, xn), (hr, hz, hn) = jnp.split(x, 3, axis=-1), jnp.split(h @ kernel, 3, axis=-1)
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        new = (1 - z) * jnp.tanh(xn + r * (hn + bias)) + z * h
        h = jnp.where(mask, new, h)
        return h, h

    h, y = jax.lax.scan(step, h, (x_TBG, mask), reverse=reverse)
    return y, h


def scan_arguments(cell):
    gates = {"lstm": 4, "gru": 3}[cell]
    state = (normal(B, H, seed=3), normal(B, H, seed=4)) if cell == "lstm" else (normal(B, H, seed=3),)
    bias = () if cell == "lstm" else (normal(H, seed=5),)
    return normal(T, B, gates * H), normal(H, gates * H, seed=6, scale=0.4), *bias, *state


MASK_TB1 = np.random.default_rng(7).random((T, B, 1)) < 0.7  # with holes, not at an end alone
SCANS = {"lstm": (lstm_scan, plain_lstm), "gru": (gru_scan, plain_gru)}


@each_cell
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_results_and_gradients_of_the_scan_are_those_of_differentiating_a_plain_loop(cell, reverse, masked):
    scan, plain = SCANS[cell]
    arguments, mask = scan_arguments(cell), MASK_TB1 if masked else None

    def score(function, mask, *arguments):
        results = function(reverse, *arguments, mask)
        return sum(jnp.sum(jnp.sin(result + n)) for n, result in enumerate(results)), results

    places = tuple(range(2, 2 + len(arguments)))
    gradient = jax.jit(jax.grad(score, argnums=places, has_aux=True), static_argnums=0)
    found = gradient(scan, mask, *arguments)
    expected = gradient(plain, np.ones((T, B, 1), bool) if mask is None else mask, *arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), found, expected)


@each_cell
def test_the_gradient_is_that_of_differences_in_float64(cell):
    with jax.enable_x64(True):
        arguments = [np.asarray(x[:3] if x.ndim == 3 else x, np.float64) for x in scan_arguments(cell)]
        check_grads(
            lambda *x: SCANS[cell][0](False, *x, MASK_TB1[:3]), arguments, 1, ["rev"], atol=1e-6, rtol=1e-6, eps=1e-5
        )


@each_cell
@each_way
def test_right_padding_changes_neither_states_nor_carries_nor_gradients_and_gives_zeros(cell, both):
    variables, x, weight = variables_of(cell, both), normal(B, T, D), normal(B, T + 3, (1 + both) * H, seed=2)
    padded = np.concatenate([x, np.full((B, 3, D), np.nan, np.float32)], axis=1)

    @jax.jit
    def gradient(variables, x, mask):
        def score(variables, x):
            y, carries = stack_of(cell, both).apply(variables, x, mask, train=False)
            return jnp.sum(y * weight[:, : y.shape[1]]) + sum(jnp.sum(carry[0]) for carry in carries), (y, carries)

        return jax.grad(score, argnums=(0, 1), has_aux=True)(variables, x)

    (short_gradient, short_x), (short, short_carries) = gradient(variables, x, length_mask(LENGTHS, T))
    (long_gradient, long_x), (long, long_carries) = gradient(variables, padded, length_mask(LENGTHS, T + 3))
    np.testing.assert_allclose(long[:, :T], short, atol=1e-6)
    assert not np.asarray(long)[length_mask(LENGTHS, T + 3) == 0].any()
    np.testing.assert_allclose(long_x[:, :T], short_x, atol=1e-6)
    assert not np.asarray(long_x[:, T:]).any()
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, (long_gradient, long_carries), (short_gradient, short_carries))
    alone, _ = run(cell, both)(variables, x[1:2, : LENGTHS[1]], None)
    np.testing.assert_allclose(short[1, : LENGTHS[1]], alone[0], atol=1e-6)


@each_cell
def test_step_by_step_is_all_at_once_and_padding_in_the_middle_is_no_step(cell):
    variables, x = variables_of(cell), normal(B, T, D)
    model = stack_of(cell)
    whole, last = run(cell)(variables, x, None)
    step = jax.jit(lambda carries, x: model.apply(variables, x, None, carries, train=False))
    carries, states = None, []
    for t in range(T):
        state, carries = step(carries, x[:, t : t + 1])
        states.append(state)
    np.testing.assert_allclose(np.concatenate(states, axis=1), whole, atol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), carries, last)
    places = np.array([0, 2, 3, 5, 6, 8])
    spread, mask = np.full((B, 9, D), 7, np.float32), np.zeros((B, 9), np.float32)
    spread[:, places], mask[:, places] = x, 1
    found, found_last = run(cell)(variables, spread, mask)
    np.testing.assert_allclose(np.asarray(found)[:, places], whole, atol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), found_last, last)


@each_cell
@each_way
def test_a_state_depends_on_the_steps_that_its_directions_have_read(cell, both):
    gradient = jax.jit(jax.grad(lambda x, t: run(cell, both)(variables_of(cell, both), x, None)[0][0, t].sum()))
    for t in range(T):
        seen = np.flatnonzero(np.abs(gradient(normal(1, T, D), t)).sum(axis=(0, 2)))
        assert seen.tolist() == list(range(T if both else t + 1))


def test_the_kernels_start_orthogonal_and_the_forget_gate_open():
    kernel = orthogonal_gates(4)(jax.random.key(0), (H, 4 * H))
    for square in jnp.split(kernel, 4, axis=1):
        np.testing.assert_allclose(square @ square.T, np.eye(H), atol=1e-5)
    init = jax.jit(lambda: stack_of("lstm", layers=1).init(jax.random.key(0), normal(B, T, D), train=False))
    params = init()["params"]
    assert params["forward_0"]["input"]["bias"].tolist() == [0] * H + [1] * H + [0] * 2 * H


@each_cell
def test_in_bfloat16_states_are_bfloat16_and_near_those_of_float32(cell):
    half = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.bfloat16))
    x, mask = normal(B, T, D), length_mask(LENGTHS, T)
    exact, _ = run(cell)(variables_of(cell), x, mask)

    @jax.jit
    def in_half(variables, x, mask):
        def loss(variables):
            y, carries = stack_of(cell).apply(variables, x, mask, train=False)
            return jnp.sum(y.astype(jnp.float32)), (y, carries)

        return jax.grad(loss, has_aux=True)(variables)

    gradient, (found, carries) = in_half(half(variables_of(cell)), half(x), half(mask))
    assert found.dtype == jnp.bfloat16
    assert [part.dtype for part in carries[0][1:]] == [jnp.float32] * (cell == "lstm")
    np.testing.assert_allclose(found.astype(np.float32), exact, atol=0.05)
    assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_is_between_layers_alone():
    x, options = normal(B, T, D), {"train": True, "rngs": {"dropout": jax.random.key(0)}}
    for layers in (1, 2):
        model, variables = stack_of("lstm", layers=layers, dropout=0.5), variables_of("lstm", layers=layers)
        dropped, _ = jax.jit(functools.partial(model.apply, **options))(variables, x)
        assert np.allclose(dropped, run("lstm", layers=layers)(variables, x, None)[0]) == (layers == 1)


V = 11


def spec(**facts):
    example = {"tokens": jax.ShapeDtypeStruct((T,), np.int32), "token_mask": jax.ShapeDtypeStruct((T,), np.float32)}
    return DataSpec(example, 10, {"classes": ("a", "b", "c"), "vocabulary_size": V, **facts})


def tokens(steps=T):
    return np.random.default_rng(0).integers(0, V, (B, steps)).astype(np.int32)


def initial(model):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens(), train=False))
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda x: generator.normal(0, 0.5, x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("cell", "pooling"), [("lstm", "last"), ("gru", "mean"), ("gru", "max")])
def test_a_text_has_the_same_logits_however_far_it_is_padded_and_one_without_tokens_has_finite_ones(cell, pooling):
    model = lstm.make(spec(), cell=cell, width=4, features=H, pooling=pooling)
    apply = jax.jit(functools.partial(model.apply, train=False))
    variables = initial(model)
    lengths = np.array([6, 4, 1, 0])
    text = tokens(9)
    long = apply(variables, text, length_mask(lengths, 9))["logits"]
    changed = np.where(length_mask(lengths, 9) > 0, text, (text + 1) % V)
    np.testing.assert_array_equal(apply(variables, changed, length_mask(lengths, 9))["logits"], long)
    np.testing.assert_allclose(apply(variables, text[:, :T], length_mask(lengths, T))["logits"], long, atol=1e-6)
    assert np.isfinite(long).all()

    def loss(variables):
        return model.apply(variables, text, length_mask(lengths, 9), train=False)["logits"].sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables)))


@pytest.mark.parametrize(("cell", "tied"), [("lstm", True), ("gru", False)])
def test_the_language_model_sees_no_later_token_and_decodes_step_by_step_as_at_once(cell, tied):
    model = lstm.language(spec(), cell=cell, width=H, features=H, tied=tied)
    variables = initial(model)
    assert ("head" in variables["params"]) != tied
    apply = jax.jit(lambda tokens: model.apply(variables, tokens, train=False)["logits"])
    whole = apply(tokens())
    assert whole.shape == (B, T, V)
    for t in range(1, T):
        changed = tokens()
        changed[:, t] = (changed[:, t] + 1) % V
        same = np.isclose(apply(changed), whole, atol=1e-7).all(axis=(0, 2))
        assert same.tolist() == [True] * t + [False] * (T - t)
    step = jax.jit(lambda carries, token_B: model.apply(variables, carries, token_B, method="decode_step"))
    carries = None
    for t in range(T):
        logits, carries = step(carries, tokens()[:, t])
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-6)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (lstm.make, {"cell": "gur"}, r"config.model.cell='gur'.*did you mean 'gru'"),
        (lstm.make, {"features": 0}, "config.model.features=0: expected 1 or more"),
        (lstm.make, {"layers": 0}, "config.model.layers=0"),
        (lstm.make, {"width": 0}, "config.model.width=0"),
        (lstm.make, {"dropout": 1.0}, "config.model.dropout=1.0"),
        (lstm.make, {"pooling": "first"}, "config.model.pooling='first'"),
        (lstm.make, {"vocabulary_size": 5}, "vocabulary too small"),
        (lstm.language, {"tied": True, "width": 8, "features": 6}, "did you mean 6"),
        (lstm.language, {"dropout": -0.1}, "config.model.dropout=-0.1"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(factory, options, message):
    with pytest.raises(ConfigError, match=message):
        factory(spec(), **options)


def test_data_without_a_vocabulary_is_an_error():
    with pytest.raises(DataError, match="vocabulary_size"):
        lstm.make(spec(vocabulary_size=0))
