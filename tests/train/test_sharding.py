"""A mesh changes where numbers lie and what travels, and no result; the compiled programs say what travels."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from train_helpers import COMMAND, ROOT, finish, start

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import AXES
from jaxlab.models.sharding import RULES
from jaxlab.train.parallel import make_strategy, mesh_sizes
from jaxlab.train.placement import Placement

CASES = (
    "mlp",
    "mlp, fsdp 8",
    "mlp, data 2, fsdp 4",
    "decoder",
    "decoder, fsdp 8",
    "decoder, fsdp 8, scanned",
    "decoder, data 2, fsdp 2, tensor 2",
    "decoder, data 2, sequence 4",
    "decoder, fsdp 8, offloaded",
    "decoder, data 1, offloaded",
)
SMALL = 64  # bytes: the loss, its weight and the hash of ids


@pytest.fixture(scope="module")
def measured():
    code, output, errors = finish(start(str(ROOT / "tests/train/sharding_program.py"), devices=8), limit=500)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["devices"] == 8
    assert tuple(result["cases"]) == CASES
    return result


def cases(*names):
    return pytest.mark.parametrize("name", names)


def kernels(case):
    """Return the bytes of what is split: every parameter of two or more dimensions."""
    return {name: size for name, size in case["parameters"].items() if not name.endswith(("bias", "scale"))}


def large(case, kind):
    """Return the bytes of each array that travels in large collectives of a kind."""
    return [sizes for sizes in case["collectives"].get(kind, []) if sum(sizes) > SMALL]


@pytest.mark.slow
@cases(*CASES)
def test_steps_on_a_mesh_are_those_of_one_device_up_to_the_order_of_addition(measured, name):
    case = measured["cases"][name]
    assert case["distance"] < 1e-5
    assert case["loss"] < 1e-6
    assert case["ids"]


@pytest.mark.slow
@cases(*CASES)
def test_a_step_leaves_every_array_where_it_was_and_each_takes_the_bytes_that_are_told(measured, name):
    case = measured["cases"][name]
    assert case["stays"]
    assert case["bytes"] == case["on a device"]


@pytest.mark.slow
@cases("mlp", "decoder")
def test_with_a_split_batch_alone_one_reduction_of_the_gradients_bytes_travels_and_nothing_else(measured, name):
    case = measured["cases"][name]
    (reduced,) = large(case, "all-reduce")
    assert 0 <= sum(reduced) - sum(case["parameters"].values()) <= SMALL
    assert set(case["collectives"]) == {"all-reduce"}


@pytest.mark.slow
@cases("mlp, fsdp 8", "decoder, fsdp 8", "decoder, fsdp 8, offloaded")
def test_fsdp_gathers_each_split_parameter_once_and_reduces_each_gradient_once(measured, name):
    case = measured["cases"][name]
    gathered = sorted(size for sizes in large(case, "all-gather") for size in sizes)
    assert gathered == sorted(kernels(case).values())
    (reduced,) = large(case, "all-reduce")  # a reduce-scatter where the backend has one; XLA's CPU backend has not
    assert 0 <= sum(reduced) - sum(case["parameters"].values()) <= SMALL
    assert set(case["collectives"]) == {"all-reduce", "all-gather"}


@pytest.mark.slow
def test_fsdp_over_scanned_layers_gathers_a_layer_at_a_time_forward_and_backward(measured):
    case = measured["cases"]["decoder, fsdp 8, scanned"]
    layers = {name: size // 2 for name, size in kernels(case).items() if "/layers/" in name}  # of each of two layers
    rest = [size for name, size in kernels(case).items() if name not in layers]
    gathered = sorted(size for sizes in large(case, "all-gather") for size in sizes)
    assert gathered == sorted([*layers.values(), *layers.values(), *rest])
    assert set(case["collectives"]) == {"all-reduce", "all-gather"}


@pytest.mark.slow
def test_two_axes_that_split_rows_reduce_a_gradient_over_the_first_after_the_second_has_split_it(measured):
    case = measured["cases"]["mlp, data 2, fsdp 4"]
    split, whole = sum(kernels(case).values()), sum(case["parameters"].values())
    assert sum(map(sum, large(case, "all-reduce"))) - whole - split // 4 <= SMALL
    assert set(case["collectives"]) == {"all-reduce", "all-gather"}


@pytest.mark.slow
def test_tensor_parallel_layers_reduce_activations_twice_forward_and_never_gather_them(measured):
    case = measured["cases"]["decoder, data 2, fsdp 2, tensor 2"]
    gathered = sorted(size for sizes in large(case, "all-gather") for size in sizes)
    assert gathered == sorted(size // 2 for size in kernels(case).values())  # the fsdp half of the tensor half
    assert set(case["collectives"]) == {"all-reduce", "all-gather"}
    activation = 16 // 4 * 16 * 32 * 4  # rows a device × tokens × width × float32
    forward = [sizes for sizes in large(case, "all-reduce") if sizes == [activation]]
    assert len(forward) >= 3  # the embedding's, attention's and the feed-forward's


@pytest.mark.slow
def test_a_long_sequence_is_split_and_only_keys_and_values_are_gathered(measured):
    case = measured["cases"]["decoder, data 2, sequence 4"]
    keys = 16 // 2 * 16 * 2 * 8 * 4  # rows × all tokens × heads × width of a head × float32
    assert large(case, "all-gather") == [[keys], [keys]]


@pytest.mark.slow
def test_moments_and_average_lie_as_their_parameter_and_the_offloaded_on_the_host(measured):
    for name in ("decoder, data 2, fsdp 2, tensor 2", "decoder, fsdp 8, offloaded"):
        placed = measured["cases"][name]["placed"]
        for parameter in measured["cases"][name]["parameters"]:
            split = placed[f"params/{parameter}"][0]
            assert placed[f"ema/{parameter}"][0] == split
            for moment in ("mu", "nu"):
                where, memory = placed[f"opt_state/0/{moment}/{parameter}"]
                host = name.endswith("offloaded")
                assert memory == ("pinned_host" if host else "device")
                assert where.replace("pinned_host", "device") == split


@pytest.mark.slow
def test_a_checkpoint_of_one_mesh_is_restored_bit_by_bit_to_another(measured):
    assert measured["restored"] == {"one device": 0.0, "fsdp 4": 0.0, "from the host's memory": 0.0}


@pytest.mark.parametrize(
    ("mesh", "problem"),
    [
        ({"data": -1, "fsdp": -1}, r"config\.parallel\.mesh\.fsdp=-1: data is -1 already"),
        ({"dta": 2}, r"config\.parallel\.mesh\.dta=2.*'data'"),
        ({"data": 16}, r"config\.parallel\.mesh\.data=16: there are 8 devices"),
        ({"data": 4, "tensor": 4}, r"data 4 × tensor 4 does not fit 8 devices"),
        ({"data": -1, "tensor": 3}, r"does not fit 8 devices"),
        ({"fsdp": 0}, r"config\.parallel\.mesh\.fsdp=0"),
    ],
)
def test_a_mesh_that_cannot_be_had_is_an_error_that_names_the_axis(mesh, problem):
    with pytest.raises(ConfigError, match=problem):
        mesh_sizes(mesh, 8)


def test_an_open_axis_takes_what_the_others_leave():
    assert mesh_sizes({"data": -1, "tensor": 2}, 8) == {"data": 4, "fsdp": 1, "sequence": 1, "tensor": 2}


def one_device(rules, offload=""):
    return Placement(
        Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4), rules, offload
    )


@pytest.mark.parametrize(
    ("rules", "offload", "problem"),
    [
        (((".*", ("fdsp",)),), "", r"config\.parallel\.rules: '\.\*': 'fdsp'.*'fsdp'"),
        (RULES, "optimiser", r"config\.parallel\.offload='optimiser'.*'optimizer'"),
    ],
)
def test_a_rule_or_offload_that_names_nothing_is_an_error(rules, offload, problem):
    with pytest.raises(ConfigError, match=problem):
        one_device(rules, offload)


@pytest.mark.parametrize("axes", [{"fsdp": 2}, {"tensor": 2}, {"data": 2}, {"sequence": 2}])
def test_pmap_refuses_what_only_a_mesh_can_do(axes):
    devices = jax.devices() * 2
    if set(axes) == {"data"}:
        assert make_strategy("pmap", axes, devices).batch_parts == 2
        return
    with pytest.raises(ConfigError, match=r"pmap splits batches alone"):
        make_strategy("pmap", axes, devices)


@pytest.mark.slow
def test_a_run_on_a_mesh_of_eight_is_measured_on_one_device_and_names_what_stays_whole(tmp_path):
    folder = str(tmp_path / "run")
    flags = ["--config.parallel.mesh.fsdp=8", "--config.parallel.mesh.data=1", "--config.train.steps=4"]
    process = start("-c", COMMAND, "train", "--config=configs/digits_cnn.py:mlp", f"--workdir={folder}",
                    "--config.model.hidden=16,12", *flags, devices=8)  # fmt: skip
    code, _, errors = finish(process)
    assert code == 0, errors
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "2 of 6 parameters are split" in log
    assert "whole on every device, as axes do not divide them: Dense_2/kernel (fsdp of 12)" in log
    code, output, errors = finish(start("-c", COMMAND, "evaluate", f"--workdir={folder}", "--no_plots"))
    assert code == 0, errors
    assert json.loads(output.splitlines()[-1])["n"] == 360
