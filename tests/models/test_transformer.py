"""The stack of blocks: each way to compute it is the same, and a position knows only what it may."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.models.attend import keys, same_segment
from jaxlab.models.slots import Slots, nan_beyond, take_rows
from jaxlab.models.transformer import Layers, Stack

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, T, D, L = 2, 5, 8, 2
MODERN = {
    "norm": "rms", "activation": "swiglu", "bias": False, "kv_heads": 2, "rotary_base": 100.0, "is_causal": True
}  # fmt: skip
PATHS = [{"attention": "einsum"}, {"scan": True}, {"remat": "full"}]
BOTH = [{"remat": "dots"}, {"remat": "full", "scan": True}, {"remat": "dots", "scan": True, "attention": "einsum"}]


def layers(**options):
    return Layers(**{"width": D, "depth": L, "heads": 4, "hidden": 12, **options})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@functools.cache
def params_of(given):
    """Return random weights of the unrolled stack, the same whatever is computed with them."""
    args = (normal(B, T, D), None, None, normal(B, T, D)) if given.cross else (normal(B, T, D),)
    shapes = jax.eval_shape(lambda: call(given, None, *args))
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda x: generator.normal(0, 0.4, x.shape).astype(np.float32), shapes["params"])


def params_for(given):
    """Return those weights as the stack wants them."""
    params = params_of(dataclasses.replace(given, scan=False, remat="none", attention="xla"))
    return stacked(params) if given.scan else params


def call(given, params, x, mask=None, memory_mask=None, memory=None, train=False, **options):
    options = {"memory_BSD": memory, "memory_mask_BTS": memory_mask, "train": train}
    if params is None:
        return Stack(given).init(jax.random.key(0), x, mask, **options)
    return Stack(given).apply({"params": params}, x, mask, **options)


def stacked(params):
    """Return an unrolled stack's parameters as those of a scanned one."""
    blocks = [value for name, value in sorted(params.items()) if name.startswith("layers_")]
    rest = {name: value for name, value in params.items() if not name.startswith("layers_")}
    return {**rest, "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


@pytest.mark.parametrize(
    ("base", "alike"),
    [
        pytest.param(MODERN, PATHS, id="modern"),
        pytest.param(MODERN, BOTH, id="modern, two options at once", marks=pytest.mark.slow),
        pytest.param({"pre_norm": False, "cross": True}, PATHS, id="original", marks=pytest.mark.slow),
    ],
)
def test_scan_remat_and_implementations_give_the_same_values_and_gradients(base, alike):
    x, memory, weight = normal(B, T, D), normal(B, 4, D, seed=2), normal(B, T, D, seed=3)
    mask = keys(np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
    rest = (None, memory) if base.get("cross") else ()
    params = params_of(layers(**base))

    def loss(params, x, options):
        given = layers(**base, **options)
        out = call(given, stacked(params) if given.scan else params, x, mask, *rest)
        return jnp.sum(out * weight), out

    @functools.partial(jax.jit, static_argnums=2)
    def both(params, x, options):
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x, dict(options))

    expected = both(params, x, ())
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    for options in alike:
        found = both(params, x, tuple(options.items()))
        np.testing.assert_allclose(found[0][1], expected[0][1], atol=1e-5, err_msg=str(options))
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5 * largest, err_msg=str(options))
        jax.tree.map(close, found[1], expected[1])


def reach(function, x):
    """Return which input places [T] each output place [T] has a gradient to, within rows and across them."""
    jacobian = jax.jit(jax.jacobian(function))(x)
    strength_BTBS = np.abs(jacobian).sum(axis=(2, 5))
    assert np.isfinite(strength_BTBS).all()
    return np.stack([strength_BTBS[b, :, b] for b in range(B)]) > 0, strength_BTBS[0, :, 1].any()


@pytest.mark.parametrize("options", [{"pre_norm": False}, *PATHS], ids=str)
def test_a_position_depends_on_itself_and_those_before_it_in_its_segment_alone_in_every_path(options):
    given = layers(is_causal=True, rotary_base=100.0, depth=2 if "scan" in options else 1, **options)
    segments = np.array([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1]])
    params = params_for(given)
    found, across = reach(lambda x: call(given, params, x, same_segment(segments)), normal(B, T, D))
    allowed = np.tril(segments[:, :, None] == segments[:, None, :])
    np.testing.assert_array_equal(found, allowed)
    assert not across


@pytest.mark.parametrize(("chunks", "scan"), [((3, 1, 1), False), pytest.param((2, 3), True, marks=pytest.mark.slow)])
def test_in_the_cached_path_too_a_position_depends_on_those_before_it_and_values_are_the_same(chunks, scan):
    given = layers(is_causal=True, rotary_base=100.0, kv_heads=2, scan=scan, depth=2 if scan else 1)
    params = params_for(given)

    def outputs(x):
        slots, cache, parts = {}, {}, []
        for part in jnp.split(x, np.cumsum(chunks)[:-1], axis=1):
            (slot, positions, mask), slots = Slots().apply(slots, jnp.ones(part.shape[:2]), T + 2, mutable="cache")
            options = {"positions_BT": positions, "slot": slot, "train": False, "mutable": "cache"}
            out, cache = Stack(given).apply({"params": params, **cache}, part, mask, **options)
            parts.append(out)
        return jnp.concatenate(parts, axis=1)

    found, across = reach(outputs, normal(B, T, D))
    np.testing.assert_array_equal(found, np.tril(np.ones((B, T, T), bool)))
    assert not across
    cached, expected = jax.jit(lambda x: (outputs(x), call(given, params, x)))(normal(B, T, D))
    np.testing.assert_allclose(cached, expected, atol=1e-5)


def test_padding_has_no_influence_within_the_stack_nor_in_the_memory():
    given, mask = layers(cross=True, depth=1), np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    params, memory = params_of(given), normal(B, T, D, seed=2)
    found, _ = reach(lambda x: call(given, params, x, keys(mask), None, memory), normal(B, T, D))
    shown = np.broadcast_to(mask[:, None, :] > 0, found.shape) | np.eye(T, dtype=bool)
    np.testing.assert_array_equal(found, shown)
    found, _ = reach(lambda memory: call(given, params, normal(B, T, D), None, keys(mask), memory), memory)
    np.testing.assert_array_equal(found, np.broadcast_to(mask[:, None, :] > 0, found.shape))


DROPS = ("dropout", "attention_dropout", "hidden_dropout", "stochastic_depth")


@pytest.mark.parametrize("options", [*({name: 0.5} for name in DROPS), {"scan": True, **dict.fromkeys(DROPS, 0.5)}])
def test_dropout_acts_in_training_alone_by_the_stream_of_its_name_or_the_only_one(options):
    given = Layers(width=4, depth=1, heads=1, hidden=4, **options)
    shapes = jax.eval_shape(lambda: Stack(given).init(jax.random.key(0), normal(1, 1, 4), train=False))
    params = jax.tree.map(lambda x: normal(*x.shape), shapes)

    @jax.jit
    def run(key):
        apply = functools.partial(Stack(given).apply, params, normal(8, T, 4))
        return [apply(train=True, rngs={stream: key}) for stream in ("dropout", "params")] + [apply(train=False)]

    (*first, still), again, (*other, same) = (run(jax.random.key(seed, impl="unsafe_rbg")) for seed in (0, 0, 1))
    assert np.array_equal(first, again[:2])
    assert np.array_equal(still, same)
    for a, b in (*zip(first, other, strict=True), (first[0], still), (first[1], still)):
        assert not np.allclose(a, b)


@pytest.mark.parametrize("stream", ["dropout", "params"])
def test_scanned_layers_draw_their_own_numbers(stream):
    given = layers(scan=True, dropout=0.5, pre_norm=False, norm="rms")
    params = jax.tree.map(jnp.zeros_like, stacked(params_of(layers(pre_norm=False, norm="rms"))))
    for name in ("attention_norm", "feed_forward_norm"):
        params["layers"][name]["scale"] = jnp.ones((L, D))
    params["layers"]["feed_forward"]["down"]["bias"] = jnp.ones((L, D))  # each layer adds 1 to the features it spares

    @jax.jit
    def kept(key):
        x = jnp.full((50, T, D), 1e-3)
        return Stack(given).apply({"params": params}, x, train=True, rngs={stream: key})

    # of two layers' additions a feature has none, the first's, the second's or both: with equal masks none or both
    assert len(np.unique(np.round(np.asarray(kept(jax.random.key(0, impl="unsafe_rbg")))[0, 0], 3))) > 2


def test_stochastic_depth_skips_whole_examples_keeps_the_expectation_and_rises_to_its_rate():
    rate, rows = 0.6, 20_000
    given = Layers(width=4, depth=2, heads=1, hidden=4, stochastic_depth=rate, pre_norm=True)
    shapes = jax.eval_shape(lambda: Stack(given).init(jax.random.key(0), normal(1, 1, 4), train=False))["params"]
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    for place in range(2):  # each block adds 1 to the first feature, as its feed-forward's bias
        params[f"layers_{place}"]["feed_forward"]["down"]["bias"][place] = 1.0
    params["norm"]["bias"] = np.zeros(4, np.float32)

    @jax.jit
    def added(key):
        _, state = Stack(given).apply(
            {"params": params}, jnp.zeros((rows, 1, 4)), train=True, rngs={"dropout": key},
            capture_intermediates=lambda module, _: module.name == "layers_1", mutable="intermediates",
        )  # fmt: skip
        return state["intermediates"]["layers_1"]["__call__"][0][0][:, 0]

    found = np.asarray(added(jax.random.key(0, impl="unsafe_rbg")))
    for place, dropped in enumerate((rate / 2, rate)):
        values, counts = np.unique(np.round(found[:, place], 5), return_counts=True)
        np.testing.assert_allclose(values, [0, 1 / (1 - dropped)], rtol=1e-4)
        assert counts[0] / rows == pytest.approx(dropped, abs=0.02)
        assert found[:, place].mean() == pytest.approx(1.0, abs=0.05)


def test_a_scanned_program_of_24_layers_is_hardly_longer_than_that_of_2():
    def length(depth, scan):
        given = Layers(width=D, depth=depth, heads=2, scan=scan, remat="dots", is_causal=True)
        shapes = jax.eval_shape(lambda: Stack(given).init(jax.random.key(0), normal(B, T, D), train=False))
        loss = jax.grad(lambda params, x: Stack(given).apply(params, x, train=False).sum())
        return len(jax.jit(loss).lower(shapes, normal(B, T, D)).as_text())

    assert length(24, True) < 1.02 * length(2, True)
    assert length(6, False) > 2 * length(2, False)


def test_remat_computes_again_what_its_policy_says():
    def products(remat):
        given = Layers(width=D, depth=1, heads=2, remat=remat)
        params = jax.eval_shape(lambda: Stack(given).init(jax.random.key(0), normal(B, T, D), train=False))
        loss = jax.grad(lambda params, x: Stack(given).apply(params, x, train=False).sum(), argnums=(0, 1))
        return str(jax.make_jaxpr(loss)(params, normal(B, T, D))).count("dot_general")

    none, dots, full = (products(remat) for remat in ("none", "dots", "full"))
    assert none < dots < full  # of the projections `dots` repeats none, of the attention's products both


@pytest.mark.parametrize("options", [{"pre_norm": False}, MODERN], ids=["original", "modern"])
def test_in_bfloat16_the_outputs_are_bfloat16_and_near_those_of_float32(options):
    given = layers(**options)
    params, x = params_of(given), normal(B, T, D)
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    found, expected = jax.jit(lambda: (call(given, low, jnp.asarray(x, jnp.bfloat16)), call(given, params, x)))()
    assert found.dtype == jnp.bfloat16
    assert np.abs(np.asarray(found, np.float32) - expected).mean() < 0.05 * np.abs(expected).mean()


def test_the_hidden_width_is_four_times_the_width_or_two_thirds_of_it_where_gated():
    assert Layers(width=64, depth=1, heads=1).hidden_width == 256
    assert Layers(width=64, depth=1, heads=1, activation="swiglu").hidden_width == 176
    assert Layers(width=4096, depth=1, heads=1, activation="swiglu").hidden_width == 10928
    assert Layers(width=64, depth=1, heads=1, hidden=7).hidden_width == 7
    one, gated = (count(Layers(width=48, depth=1, heads=1, activation=a, bias=False)) for a in ("silu", "swiglu"))
    assert one == gated


def count(given):
    shapes = jax.eval_shape(lambda: Stack(given).init(jax.random.key(0), jnp.zeros((1, 1, given.width)), train=False))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, r"config.model.heads=3: expected a divisor of width=8; did you mean 2\?"),
        ({"heads": 0}, "config.model.heads=0: expected 1 or more"),
        ({"kv_heads": 3}, r"config.model.kv_heads=3: expected a divisor of heads=4; did you mean 2\?"),
        ({"kv_heads": -1}, "config.model.kv_heads=-1: expected 0 or more"),
        ({"depth": 0}, "config.model.depth=0"),
        ({"heads": 8, "rotary_base": 100.0}, "config.model.heads=8: rotary.*even width, not 1"),
        ({"dropout": 1.0}, "config.model.dropout=1.0: expected a rate from 0 to below 1"),
        ({"stochastic_depth": -0.1}, "config.model.stochastic_depth=-0.1"),
        ({"attention_dropout": float("nan")}, "config.model.attention_dropout=nan"),
        ({"norm": "layr"}, "config.model.norm='layr'.*did you mean 'layer'"),
        ({"activation": "swigl"}, "did you mean 'swiglu'"),
        (
            {"attention": "flash"},
            "config.model.attention='flash': expected one of einsum, xla, cudnn; did you mean 'xla'",
        ),
        ({"remat": "dot"}, "did you mean 'dots'"),
        ({"attention": "cudnn", "attention_dropout": 0.1}, "attention_dropout=0.1: the fused attention has none"),
        ({"attention": "cudnn"}, "config.model.heads=4: cuDNN's attention has heads of a multiple of 8 features"),
        (
            {"attention": "cudnn", "width": 32},
            r"'cudnn': needs an NVIDIA GPU of compute capability .* and this is a cpu; did you mean 'xla'\?",
        ),
    ],
    ids=str,
)
def test_layers_that_cannot_be_are_an_error_naming_the_option_and_the_nearest_valid_value(options, message):
    with pytest.raises(ConfigError, match=message):
        layers(**options)


@pytest.mark.parametrize(("capability", "fits"), [("9.0", True), ("12.1", True), ("7.5", False), ("gfx942", False)])
def test_cudnns_attention_needs_an_ampere_gpu_or_a_later_one(monkeypatch, capability, fits):
    device = types.SimpleNamespace(compute_capability=capability, device_kind="GPU of a test")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    if fits:
        assert layers(attention="cudnn", width=32).attention == "cudnn"
    else:
        with pytest.raises(ConfigError, match=rf"'cudnn': needs .* this is a GPU of a test {capability}; did you mean"):
            layers(attention="cudnn", width=32)


def test_rows_of_a_cache_are_taken_scanned_or_not_and_beyond_its_end_is_nan():
    for lead in ((), (L,)):
        cache = {
            "slots": {"slot": np.array(3), "length": np.arange(2), "filled": np.arange(8).reshape(2, 4)},
            "layers": {"attention": {"cached_key": normal(*lead, 2, 4, 1, 3)}},
        }
        taken = take_rows(cache, np.array([1, 1, 0]))
        assert taken["slots"]["slot"] == 3
        np.testing.assert_array_equal(taken["slots"]["length"], [1, 1, 0])
        np.testing.assert_array_equal(
            taken["layers"]["attention"]["cached_key"],
            cache["layers"]["attention"]["cached_key"][..., [1, 1, 0], :, :, :],
        )
    assert np.isnan(nan_beyond(jnp.ones((1, 2, 3)), 3, 4)).all()
    assert not np.isnan(nan_beyond(jnp.ones((1, 2, 3)), 2, 4)).any()
    with pytest.raises(ValueError, match="5 tokens at once do not fit into a cache of 4 slots"):
        Slots().apply({}, np.ones((1, 5)), 4, mutable="cache")


def torchs_parameters(layer):
    """Return the parameters of a layer of torch by our names."""

    def linear(module):
        return {"kernel": module.weight.detach().numpy().T, "bias": module.bias.detach().numpy()}

    def attention(module):
        weights, biases = (np.split(x.detach().numpy(), 3) for x in (module.in_proj_weight, module.in_proj_bias))
        names = ("query", "key", "value")
        found = {name: {"kernel": w.T, "bias": b} for name, w, b in zip(names, weights, biases, strict=True)}
        return {**found, "output": linear(module.out_proj)}

    cross = hasattr(layer, "multihead_attn")
    norms = ["attention_norm", *(["cross_attention_norm"] if cross else []), "feed_forward_norm"]
    params = {"attention": attention(layer.self_attn)}
    if cross:
        params["cross_attention"] = attention(layer.multihead_attn)
    params["feed_forward"] = {"up": linear(layer.linear1), "down": linear(layer.linear2)}
    for number, name in enumerate(norms, start=1):
        norm = getattr(layer, f"norm{number}")
        params[name] = {"scale": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()}
    return {"layers_0": params}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "original"])
def test_a_block_is_torchs_values_and_gradients(kind):
    torch = pytest.importorskip("torch")
    options = {
        "bert": {"pre_norm": False, "epsilon": 1e-12, "activation": "gelu"},
        "gpt2": {"pre_norm": True, "epsilon": 1e-5, "activation": "gelu_tanh", "is_causal": True},
        "original": {"pre_norm": False, "epsilon": 1e-6, "activation": "relu", "is_causal": True, "cross": True},
    }[kind]
    given = layers(depth=1, **options)
    activation = {
        "bert": torch.nn.functional.gelu, "gpt2": torch.nn.GELU(approximate="tanh"), "original": torch.relu,
    }[kind]  # fmt: skip
    make = torch.nn.TransformerDecoderLayer if given.cross else torch.nn.TransformerEncoderLayer
    other = make(D, 4, 12, 0.0, activation, given.epsilon, True, given.pre_norm, dtype=torch.float64)
    for number, parameter in enumerate(other.parameters()):
        parameter.data = torch.tensor(normal(*parameter.shape, seed=number)).double() * 0.5
    params = torchs_parameters(other)
    if given.pre_norm:
        params["norm"] = {"scale": np.ones(D), "bias": np.zeros(D)}
    x, memory = normal(B, T, D), normal(B, 4, D, seed=9)
    rest = (None, None, memory) if given.cross else ()

    @jax.jit
    def run(params, x):
        out, pull = jax.vjp(lambda params, x: call(given, params, x, *rest), params, x)
        return out, pull(jnp.cos(out))

    found, (params_gradient, x_gradient) = run(jax.tree.map(np.float32, params), x)
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    hidden = torch.triu(torch.ones(T, T, dtype=torch.bool), 1) if given.is_causal else None
    more = (torch.tensor(memory).double(), hidden) if given.cross else (hidden,)
    expected = other(tensor, *more)
    expected = torch.nn.functional.layer_norm(expected, (D,), eps=given.epsilon) if given.pre_norm else expected
    np.testing.assert_allclose(found, expected.detach(), atol=1e-4)
    expected.sin().sum().backward()
    np.testing.assert_allclose(x_gradient, tensor.grad, atol=1e-4)
    for parameter in other.parameters():
        parameter.data = parameter.grad
    expected = torchs_parameters(other)["layers_0"]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-3), params_gradient["layers_0"], expected)
