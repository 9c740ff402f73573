"""Plans of a step: FLOPs by hand, memory as compiled, what travels as the program says, and verdicts that follow."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlab
from jaxlab.cli import main
from jaxlab.core.errors import UsageError
from jaxlab.core.override import override
from jaxlab.core.tree import named_leaves
from jaxlab.run.assemble import assemble
from jaxlab.run.collectives import Travel, collectives
from jaxlab.run.flops import count, flops_of
from jaxlab.run.hardware import CHIPS, chip
from jaxlab.run.preflight import counts, preflight
from jaxlab.run.roofline import Work, estimate

LLAMA = "configs/llama_decoder.py"
SIZES = {"data": 1, "fsdp": 1, "sequence": 1, "tensor": 1}


def small(**overrides: str):
    return override(jaxlab.load_config(LLAMA), {
        "model.width": "64", "model.depth": "2", "model.heads": "4", "model.kv_heads": "2", "model.hidden": "192",
        "model.max_length": "32", "data.train.length": "32", "data.train.vocabulary_size": "512",
        "parallel.mesh.data": "-1", "parallel.mesh.fsdp": "1", "train.precision": "float32", **overrides,
    })  # fmt: skip


def flops(function, *shapes):
    return count(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


@given(st.tuples(*[st.integers(1, 5)] * 4))
@settings(max_examples=20, deadline=None)
def test_a_product_takes_two_operations_a_number_and_summand(sizes):
    b, m, k, n = sizes
    assert flops(lambda x, y: jnp.einsum("bmk,bkn->bmn", x, y), (b, m, k), (b, k, n)) == 2 * b * m * k * n


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_takes_its_window_for_every_number_it_makes(groups):
    def convolve(x, kernel):
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", **options)

    assert flops(convolve, (3, 8, 8, 4), (3, 3, 4 // groups, 6)) == 2 * (3 * 4 * 4 * 6) * (3 * 3 * 4 // groups)


def test_a_scan_counts_its_body_as_often_as_it_runs_and_remat_what_it_repeats():
    def layers(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]

    assert flops(layers, (4, 5), (5, 5)) == 7 * 2 * 4 * 5 * 5
    assert flops(jax.jit(layers), (4, 5), (5, 5)) == 7 * 2 * 4 * 5 * 5

    def two(x, w, v):
        return jnp.tanh(jnp.tanh(x @ w) @ v)

    plain = flops(jax.grad(lambda *b: two(*b).sum(), argnums=(0, 1, 2)), (4, 5), (5, 6), (6, 7))
    again = jax.grad(lambda *b: jax.checkpoint(two)(*b).sum(), argnums=(0, 1, 2))
    assert flops(again, (4, 5), (5, 6), (6, 7)) > plain


def test_a_decoder_takes_six_operations_a_parameter_and_token_and_twelve_a_pair_of_places():
    config = small(**{"model.remat": "none", "train.batch_size": "4"})
    experiment = assemble(config)
    params = jax.eval_shape(experiment.init).params
    matrices = sum(x.size for name, x in named_leaves(params).items() if name.endswith(("kernel", "embedding")))
    length, width, depth, rows = 32, 64, 2, 4
    expected = 6 * matrices * rows * length + 12 * depth * rows * length**2 * width
    assert flops_of(experiment) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        (LLAMA, {"model.width": "256", "model.depth": "3", "data.train.length": "256", "parallel.mesh.fsdp": "1"}),
        ("configs/digits_cnn.py", {}),
    ],
)
def test_the_count_is_within_a_twentieth_of_xlas_own(path, overrides):
    experiment = assemble(override(jaxlab.load_config(path), overrides), ("train",))
    found = counts(experiment)
    assert found["step"] == pytest.approx(found["xla"], rel=0.05)
    assert found["model"] <= found["step"]


def test_collectives_in_a_loop_count_as_often_as_it_runs():
    text = """HloModule m
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = f32[8]{0} all-gather(%x), dimensions={0}
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"},"x":1}
  %r = (f32[4]{0}, bf16[2,3]{1,0}) all-reduce(%a, %b), to_apply=%add
}
"""
    assert collectives(text) == {"all-reduce": Travel(1, 28), "all-gather": Travel(5, 160)}


def test_memory_is_that_of_the_compiled_program_and_its_classes_add_up():
    experiment = assemble(small(**{"train.batch_size": "8"}))
    found = preflight(experiment, 1)
    memory = dict(found["memory"])
    total = memory.pop("total")
    assert sum(memory.values()) == pytest.approx(total, rel=0.02)
    state = jax.eval_shape(experiment.init)
    assert memory["params"] == sum(x.size * 4 for x in jax.tree.leaves(state.params))
    assert memory["opt_state"] == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))


def test_the_largest_batch_fits_and_one_more_row_does_not():
    experiment = assemble(small(**{"train.batch_size": "8"}))
    found = preflight(experiment, 1, "v5e")
    assert found["fits"]
    base = found["memory"]["total"] - 8 * found["bytes_a_row"]
    most = found["largest_batch"]
    assert base + most * found["bytes_a_row"] <= found["usable_bytes"] + found["bytes_a_row"]
    assert base + (most + 2) * found["bytes_a_row"] > found["usable_bytes"]


def test_what_does_not_fit_is_told_with_what_would_make_it_fit():
    most = preflight(assemble(small(**{"train.batch_size": "8"})), 1, "v5e")["largest_batch"]
    config = small(**{"train.batch_size": str(4 * most), "model.remat": "none"})
    found = preflight(assemble(config), 1, "v5e")
    assert not found["fits"]
    changes = {each["change"].split("=")[0].removeprefix("--config."): each for each in found["would_fit"]}
    assert {"model.remat", "train.grad_accumulation", "train.precision", "train.batch_size"} <= set(changes)
    assert changes["train.batch_size"]["fits"]
    for each in changes.values():
        assert each["fits"] == (each["bytes"] <= found["usable_bytes"])


def work(flops=1e12, state=10**9, sent=0, activations=0):
    travels = {"all-gather": Travel(1, sent)} if sent else {}
    return Work(flops, flops, state, state, activations, travels, state)


@pytest.mark.parametrize("name", CHIPS)
def test_an_estimate_lies_between_its_bounds_and_grows_with_every_kind_of_work(name):
    known, sizes = chip(name), {**SIZES, "fsdp": 4}
    base = estimate(work(sent=10**9), known, sizes)
    assert base.best <= base.seconds <= base.worst
    assert 0 < base.mfu_worst <= base.mfu <= base.mfu_best < 1
    for more in (work(flops=1e15, sent=10**9), work(state=10**12, sent=10**9), work(sent=10**12)):
        assert estimate(more, known, sizes).seconds > base.seconds


def test_beyond_the_fast_links_the_same_bytes_take_longer():
    known = chip("h100")
    near = estimate(work(sent=10**9), known, {**SIZES, "fsdp": 8})
    far = estimate(work(sent=10**9), known, {**SIZES, "fsdp": 16})
    assert far.communication == pytest.approx(near.communication * known.link / known.network)


def test_an_unknown_chip_is_an_error_that_names_the_nearest():
    with pytest.raises(UsageError, match=r"--hardware=h10.*'h100'"):
        chip("h10")


def test_the_command_plans_without_a_device_and_says_so_last(capsys):
    flags = [f"--config.{path}={value}" for path, value in {
        "model.width": 64, "model.depth": 2, "model.heads": 4, "model.kv_heads": 2, "model.hidden": 192,
        "model.max_length": 32, "data.train.length": 32, "train.batch_size": 8, "parallel.mesh.fsdp": 1,
    }.items()]  # fmt: skip
    assert main(["check", f"--config={LLAMA}", "--devices=1", "--hardware=h100", "--price=2", *flags]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])["preflight"]
    assert found["dollars"] == pytest.approx(found["hours"] * 2)
    assert "fits" in err
    assert "MFU" in err
    assert main(["check", f"--config={LLAMA}", "--hardware=h10"]) == 2
