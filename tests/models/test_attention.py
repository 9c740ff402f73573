"""Attention against a float64 oracle, in every implementation; what a mask hides has no influence at all."""

import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.models.attend import SHORT, attend, causal, combine, fused_attention, keys, same_segment
from jaxlab.models.attention import Attention
from jaxlab.models.positions import in_order, rotate, sinusoidal

B, T, S, D, N, H = 2, 5, 7, 12, 4, 6
PATHS = ("xla", "einsum", "dropout")
each_path = pytest.mark.parametrize("path", PATHS)
INIT = nn.initializers.normal(0.5)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def heads(kv_heads, T=T, S=S):
    return normal(B, T, N, H), normal(B, S, kv_heads, H, seed=1), normal(B, S, kv_heads, H, seed=2)


def run(path, *args, **options):
    """Attend by one of the paths; that of dropout drops nothing here."""
    if path == "dropout":
        return attend(*args, drop=lambda weight: weight, **options)
    return attend(*args, implementation=path, **options)


def oracle(q, k, v, mask):
    """Return attention in float64, head by head."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    mask = np.broadcast_to(mask, (q.shape[0], q.shape[1], k.shape[1]))
    for b, t, n in np.ndindex(q.shape[:3]):
        seen, group = mask[b, t], n // (N // k.shape[2])
        if seen.any():
            score = k[b, seen, group] @ q[b, t, n] / np.sqrt(q.shape[-1])
            weight = np.exp(score - score.max())
            out[b, t, n] = weight / weight.sum() @ v[b, seen, group]
    return out


def masks(T=T, S=S):
    """Return masks by name; in the last a query sees nothing."""
    random = np.random.default_rng(3).random((B, T, S)) < 0.5
    return {
        "all": None,
        "keys": np.array([[1, 1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1]])[:, None, :S] > 0,
        "one row for all": random[:1] | np.eye(T, S, dtype=bool),
        "nothing": np.where(np.arange(T)[None, :, None] == 2, False, random),
    }


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_every_implementation_is_the_oracle_for_any_mask_and_number_of_key_heads(kv_heads):
    arrays = heads(kv_heads)
    cases = [(path, name) for path in PATHS for name in masks()]
    found = jax.jit(lambda *x: [run(path, *x, masks()[name]) for path, name in cases])(*arrays)
    for case, out in zip(cases, found, strict=True):
        mask = masks()[case[1]]
        np.testing.assert_allclose(out, oracle(*arrays, True if mask is None else mask), atol=1e-5, err_msg=str(case))


@each_path
def test_causal_attention_is_that_with_a_triangular_mask_alone_or_with_another(path):
    arrays = heads(2, T=T, S=T)
    both = (None, masks(S=T)["keys"])
    for mask, found in zip(
        both, jax.jit(lambda *x: [run(path, *x, m, is_causal=True) for m in both])(*arrays), strict=True
    ):
        np.testing.assert_allclose(found, oracle(*arrays, np.asarray(combine(causal(T), mask))), atol=1e-5)


def test_all_implementations_have_the_same_gradients():
    arrays, weight = heads(2), normal(B, T, N, H, seed=5)
    mask = masks()["nothing"]

    @jax.jit
    def gradients_of(arrays):
        return [jax.grad(lambda x, path=path: jnp.sum(run(path, *x, mask) * weight))(arrays) for path in PATHS]

    gradients = gradients_of(arrays)
    for other in gradients[1:]:
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), gradients[0], other)


@each_path
def test_a_query_that_sees_nothing_gets_zeros_and_gives_no_gradient(path):
    q, k, v = heads(2)
    mask = masks()["nothing"]

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def total(q, k, v):
        out = run(path, q, k, v, mask)
        return out[:, 2].sum(), out

    (_, out), gradients = total(q, k, v)
    assert not np.asarray(out[:, 2]).any()
    assert all(not np.asarray(gradient).any() for gradient in gradients)


@each_path
def test_what_a_mask_hides_changes_no_bit_and_has_no_gradient(path):
    arrays = heads(2, T=T, S=T)
    segments = np.array([[1, 1, 2, 2, 0], [1, 2, 2, 2, 3]])
    mask = combine(same_segment(segments), causal(T))

    @jax.jit
    def out(q, k, v):
        return run(path, q, k, v, mask)

    for jacobian in jax.jit(jax.jacobian(out, argnums=(1, 2)))(*arrays):
        reach_BTS = np.abs(np.stack([jacobian[b, :, :, :, b] for b in range(B)])).sum(axis=(2, 3, 5, 6))
        assert not reach_BTS[~np.asarray(mask)].any()
        across = np.abs(jacobian[0, :, :, :, 1]).sum()
        assert across == 0
    assert (reach_BTS[np.asarray(mask)] > 0).all()  # of the values: each that may be seen is
    loud = [np.where(np.arange(T)[None, :, None, None] == 4, 1e9, x) for x in arrays[1:]]
    np.testing.assert_array_equal(out(arrays[0], *loud)[:, :4], out(*arrays)[:, :4])


def test_masks_are_combined_by_and_and_none_is_no_mask():
    mask = combine(None, keys(np.array([[1.0, 1.0, 0.0]])), None, causal(3))
    np.testing.assert_array_equal(mask[0], [[1, 0, 0], [1, 1, 0], [1, 1, 0]])
    assert combine(None, None) is None
    segments = same_segment(np.array([[1, 2, 0, 0]]))[0].astype(int)
    np.testing.assert_array_equal(segments, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize("path", ["xla", "einsum"])
def test_in_bfloat16_the_softmax_is_in_float32(path):
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in heads(2, S=400))
    attended = jax.jit(functools.partial(run, path))
    found = attended(q * 8, k, v)
    assert found.dtype == jnp.bfloat16
    expected = oracle(q * 8, k, v, True)
    assert np.abs(np.asarray(found, np.float64) - expected).max() < 0.02
    ones = jnp.ones((B, 1000, 2, H), jnp.bfloat16)
    assert np.abs(np.asarray(attended(q * 0, ones, ones), np.float32) - 1).max() < 0.01  # a bfloat16 sum stops at 256


def module(kv_heads=N, **options):
    fields = {
        "heads": N, "kv_heads": kv_heads, "head_width": H, "bias": True, "is_causal": False, "rotary_base": 0.0,
        "dropout": 0.0, "implementation": "xla", "kernel_init": INIT, "output_init": INIT,
    }  # fmt: skip
    return Attention(**{**fields, **options})


def params_of(layer, *args, **options):
    """Return random weights without compiling an initialisation."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *args, **options, train=False))["params"]
    generator = np.random.default_rng(7)
    return jax.tree.map(lambda x: generator.normal(0, 0.5, x.shape).astype(np.float32), shapes)


def test_attention_without_positions_is_equivariant_to_permutations_and_with_rotation_it_is_not():
    x, order = normal(B, T, D), np.array([3, 0, 4, 1, 2])
    for base, same in ((0.0, True), (100.0, False)):
        layer = module(kv_heads=2, rotary_base=base)
        positions = in_order(x)

        params = params_of(layer, x, None, None, positions)

        @jax.jit
        def run_layer(x, layer=layer, params=params, positions=positions):
            return layer.apply({"params": params}, x, None, None, positions, train=False)

        out, permuted = run_layer(x), run_layer(x[:, order])
        assert np.allclose(out[:, order], permuted, atol=1e-5) == same


def test_grouped_queries_are_those_of_as_many_key_heads_with_repeated_weights():
    x, grouped, full = normal(B, T, D), module(kv_heads=2), module()
    params = params_of(grouped, x)

    def repeat(leaf):
        return np.repeat(np.reshape(leaf, (*leaf.shape[:-1], 2, H)), 2, axis=-2).reshape(*leaf.shape[:-1], N * H)

    repeated = {**params, **{name: jax.tree.map(repeat, params[name]) for name in ("key", "value")}}
    cases = ((grouped, params), (full, repeated))
    found, expected = jax.jit(lambda: [layer.apply({"params": p}, x, train=False) for layer, p in cases])()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dropout_of_the_weights_acts_in_training_alone_and_keeps_their_expectation():
    x = normal(1, T, D)
    layer = module(dropout=0.5)
    params = params_of(layer, x)

    @jax.jit
    def sample(keys):
        one = functools.partial(layer.apply, {"params": params}, x)
        return one(train=False), jax.vmap(lambda key: one(train=True, rngs={"dropout": key}))(keys)

    expected, samples = sample(jax.random.split(jax.random.key(1, impl="unsafe_rbg"), 4000))
    assert not np.allclose(samples[0], samples[1])
    error = np.abs(samples.mean(axis=0) - expected) / (samples.std(axis=0) / 4000**0.5)
    assert error.max() < 5


def test_scores_of_rotated_queries_and_keys_depend_on_their_distance_alone():
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)

    @jax.jit
    def inner(query_at, key_at):
        turned = [rotate(x, jnp.array([[at]])) for x, at in ((q, query_at), (k, key_at))]
        return jnp.sum(turned[0] * turned[1])

    def score(query_at, key_at):
        return float(inner(query_at, key_at))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(4, 4) == pytest.approx(float(np.sum(q * k)), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(4, 9), abs=1e-2)
    turned = rotate(normal(2, 3, 2, 8), np.array([[0, 5, 50]] * 2))
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(normal(2, 3, 2, 8), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(turned[:, 0], normal(2, 3, 2, 8)[:, 0])


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids_are_the_papers_formula(width):
    found = sinusoidal(np.array([[0, 1, 30]]), width)
    for place, position in enumerate((0, 1, 30)):
        for d in range(width):
            angle = position / 10000 ** (2 * (d // 2) / width)
            expected = np.sin(angle) if d % 2 == 0 else np.cos(angle)
            assert float(found[0, place, d]) == pytest.approx(expected, abs=1e-5)


def value_and_gradients(attention):
    """Return a jitted function of queries, keys, values and each output's weight, to the output and gradients."""

    @jax.jit
    def both(q, k, v, weight):
        out, pull = jax.vjp(attention, q, k, v)
        return out, *pull(weight.astype(out.dtype))

    return both


def test_places_filled_up_for_a_fused_attention_change_neither_values_nor_gradients():
    def fused(mask, is_causal, multiple, *x):
        return fused_attention(*x, mask, is_causal, "xla", multiple)

    arrays, weight = heads(2), normal(B, T, N, H, seed=5)
    alike = [x[:, :T] for x in arrays]
    cases = [(arrays, masks()["all"], False), (arrays, masks()["keys"], False), (alike, None, True)]
    for given, mask, is_causal in cases:
        found, expected = (
            value_and_gradients(functools.partial(fused, mask, is_causal, multiple))(*given, weight)
            for multiple in (4, 1)
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


@pytest.mark.parametrize("padded", [False, True])
def test_causal_attention_in_parts_is_that_in_one_values_and_gradients(padded):
    length = SHORT + 3
    q, k, v = (normal(B, length, n, H, seed=seed) for seed, n in enumerate((N, 2, 2)))
    begins, weight = np.array([[0], [length // 2]]), normal(*q.shape, seed=5)
    mask = keys(np.arange(length) >= begins) if padded else None  # queries before see nothing at all
    found, dropped, expected = (
        value_and_gradients(functools.partial(run, path, mask_BTS=mask, is_causal=True))(q, k, v, weight)
        for path in ("einsum", "dropout", "xla")
    )
    for other in (found, dropped):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), other, expected)


def cudnn_cases():
    """Return queries, keys and values of an odd and of an even length, with a mask and whether they are causal."""
    for length in (15, 16):
        q, k, v = (jnp.asarray(normal(B, length, heads, 8, seed=heads), jnp.bfloat16) for heads in (4, 2, 2))
        token_mask_BS = np.arange(length) < np.array([[length], [5]])
        for mask, is_causal in ((None, False), (None, True), (keys(token_mask_BS), True), (keys(token_mask_BS), False)):
            yield (q, k, v), mask, is_causal


def test_cudnns_attention_has_a_program_for_a_gpu_at_any_length():
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        pytest.skip("needs JAX's plugin for CUDA, but no GPU: pip install 'jax[cuda12]'")
    for arrays, mask, is_causal in cudnn_cases():
        attention = functools.partial(attend, mask_BTS=mask, is_causal=is_causal, implementation="cudnn")
        traced = value_and_gradients(attention).trace(*arrays, arrays[0].astype(jnp.float32))
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert len(re.findall(r"custom_call @__cudnn\$fmha\w*Backward", program)) == 1


def test_cudnns_attention_is_einsums_on_a_gpu_values_and_gradients():
    if jax.default_backend() != "gpu":
        pytest.skip("needs an NVIDIA GPU")
    for arrays, mask, is_causal in cudnn_cases():
        found, expected = (
            value_and_gradients(functools.partial(attend, mask_BTS=mask, is_causal=is_causal, implementation=name))(
                *(x.astype(dtype) for x in arrays), normal(*arrays[0].shape, seed=5)
            )
            for name, dtype in (("cudnn", jnp.bfloat16), ("einsum", jnp.float32))
        )
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(x, np.float32), y, atol=0.03 * np.abs(y).max())


def test_cudnn_in_float32_is_an_error_that_says_what_to_set():
    x = normal(B, T, D)
    layer = module(implementation="cudnn")
    params = params_of(layer, x)  # which are made in float32, by xla
    with pytest.raises(ConfigError, match=r"config.model.attention='cudnn'.*precision='bfloat16'"):
        layer.apply({"params": params}, x, train=False)


def test_attention_is_torchs_values_and_gradients():
    torch = pytest.importorskip("torch")
    x, memory, mask_BS = normal(B, T, N * H), normal(B, S, N * H, seed=1), np.arange(S) < np.array([[7], [4]])
    other = torch.nn.MultiheadAttention(N * H, N, batch_first=True).double()
    weights = np.split(other.in_proj_weight.detach().numpy(), 3)
    biases = np.split(normal(3 * N * H, seed=2), 3)
    other.in_proj_bias.data = torch.tensor(np.concatenate(biases)).double()
    names = ("query", "key", "value")
    params = {name: {"kernel": w.T, "bias": b} for name, w, b in zip(names, weights, biases, strict=True)}
    kernel, bias = (value.detach().numpy() for value in (other.out_proj.weight, other.out_proj.bias))
    params["output"] = {"kernel": kernel.T, "bias": bias}

    @jax.jit
    def out(x, memory):
        return module().apply({"params": params}, x, memory, keys(mask_BS), cross=True, train=False)

    found, pull = jax.vjp(out, x, memory)
    inputs = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (x, memory)]
    expected, _ = other(inputs[0], inputs[1], inputs[1], key_padding_mask=torch.tensor(~mask_BS))
    np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
    expected.cos().sum().backward()
    for gradient, tensor in zip(pull(-jnp.sin(found)), inputs, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, atol=1e-5)
