"""Foreign weights: what is saved is loaded bit by bit, by the names others use, and no fault passes in silence."""

import json
import logging
import sys

import jax
import numpy as np
import pytest
from weight_cases import CASES, IMAGES, LENGTH, TEXT, TOKENS_BT, TRANSFORMER, Case, shapes_of, variables_of

from jaxlab import cli
from jaxlab.core.config import load as load_config
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.tree import named_leaves, replaced
from jaxlab.data import digits
from jaxlab.models import decoder, vit
from jaxlab.models.weights import gpt2, resizing
from jaxlab.models.weights import vit as vit_weights
from jaxlab.run.assemble import assemble

safetensors = pytest.importorskip("safetensors.flax")
GPT2 = CASES["gpt2"]
SHAPES = shapes_of(GPT2.model, GPT2.inputs)
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def tensors_of(case: Case = GPT2, seed: int = 0, folder=None):
    """Return a saved model's tensors by foreign name."""
    case.save(str(folder), variables_of(case.model, case.inputs, seed))
    return {name: np.asarray(x) for name, x in safetensors.load_file(folder / FILE).items()}


@pytest.fixture
def written(tmp_path):
    """Return the function that changes GPT-2's tensors, writes them and returns the file."""

    def write(change=lambda tensors: None):
        tensors = tensors_of(folder=tmp_path / "whole")
        change(tensors)
        safetensors.save_file(tensors, tmp_path / "changed.safetensors")
        return str(tmp_path / "changed.safetensors")

    return write


@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_is_loaded_bit_by_bit(name, tmp_path):
    case = CASES[name]
    variables = variables_of(case.model, case.inputs)
    case.save(str(tmp_path), variables)
    found = case.load(str(tmp_path))(shapes_of(case.model, case.inputs))
    expected = named_leaves(variables)
    assert found.keys() == expected.keys()
    for leaf, value in expected.items():
        np.testing.assert_array_equal(found[leaf], value, strict=True, err_msg=leaf)


@pytest.mark.parametrize("name", [name for name in CASES if "scanned" not in name and f"{name} scanned" in CASES])
def test_a_scanned_stack_and_single_layers_write_the_same_file_and_read_each_other_s(name, tmp_path):
    single, scanned = CASES[name], CASES[f"{name} scanned"]
    variables = variables_of(single.model, single.inputs)
    single.save(str(tmp_path / "single"), variables)
    stacked = single.load(str(tmp_path / "single"))(shapes_of(scanned.model, scanned.inputs))
    scanned.save(str(tmp_path / "scanned"), replaced(shapes_of(scanned.model, scanned.inputs), stacked))
    assert (tmp_path / "single" / FILE).read_bytes() == (tmp_path / "scanned" / FILE).read_bytes()


def torchvision(bottleneck, blocks, channels):
    """Return torchvision's names and shapes, without counters; ours stop at as many stages."""
    shapes = {"conv1.weight": (channels[0], 3, 7, 7), **torch_norm("bn1", channels[0])}
    before = channels[0]
    for stage, (count, width) in enumerate(zip(blocks, channels, strict=False), 1):
        after = 4 * width if bottleneck else width
        for block in range(count):
            there = f"layer{stage}.{block}"
            sizes = [(width, 1), (width, 3), (after, 1)] if bottleneck else [(width, 3), (after, 3)]
            inside = before
            for place, (outputs, side) in enumerate(sizes, 1):
                shapes[f"{there}.conv{place}.weight"] = (outputs, inside, side, side)
                shapes |= torch_norm(f"{there}.bn{place}", outputs)
                inside = outputs
            if block == 0 and (stage > 1 or before != after):
                shapes[f"{there}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= torch_norm(f"{there}.downsample.1", after)
            before = after
    return {**shapes, "fc.weight": (3, before), "fc.bias": (3,)}


def torch_norm(name, size):
    return {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}


def timm_vit(width, depth, tokens, patch):
    layer = {
        "norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,), "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
        "norm2.weight": (width,), "norm2.bias": (width,), "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,), "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
    }  # fmt: skip
    return {
        "cls_token": (1, 1, width), "pos_embed": (1, tokens, width),
        "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,), "head.weight": (3, width), "head.bias": (3,),
        **{f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in layer.items()},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit by timm", timm_vit(12, 2, 17, 8)),
        ("resnet by timm", torchvision(False, (1, 2, 2), (4, 6, 8))),
        ("bottleneck by timm", torchvision(True, (2, 1), (4, 6))),
    ],
)
def test_the_file_has_the_names_and_shapes_of_torchvision_and_timm(name, expected, tmp_path):
    assert {name: x.shape for name, x in tensors_of(CASES[name], folder=tmp_path).items()} == expected


def test_query_key_and_value_are_timm_s_thirds_and_a_convolution_has_outputs_first(tmp_path):
    case = CASES["vit by timm"]
    params = variables_of(case.model, case.inputs)["params"]
    tensors = tensors_of(case, folder=tmp_path)
    attention = params["stack"]["layers_1"]["attention"]
    thirds = np.split(tensors["blocks.1.attn.qkv.weight"], 3)
    for part, third_OI in zip(("query", "key", "value"), thirds, strict=True):
        np.testing.assert_array_equal(third_OI, attention[part]["kernel"].T)
    np.testing.assert_array_equal(tensors["patch_embed.proj.weight"][5, 1], params["patches"]["kernel"][:, :, 1, 5])


def test_a_model_that_the_family_does_not_have_is_not_saved_in_part(tmp_path):
    model = decoder.make(TEXT, max_length=LENGTH, width=12, depth=1, heads=2)
    with pytest.raises(ConfigError, match=r"GPT-2 by transformers has no name for .*gate"):
        gpt2.save(str(tmp_path / "out"), variables_of(model, TOKENS_BT))
    assert not (tmp_path / "out").exists()


# Variants of the same weights.


def values_by(path, **options):
    return gpt2.load(path, **options)(SHAPES)


def same_values(path, **options):
    """Assert that the file gives what the whole model has."""
    expected = named_leaves(variables_of(GPT2.model, GPT2.inputs))
    found = values_by(path, **options)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


def without_prefix(tensors):
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)


def with_buffers(tensors):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    tensors["transformer.h.0.attn.bias"] = np.ones((1, 1, LENGTH, LENGTH), np.uint8)
    tensors["transformer.h.1.attn.masked_bias"] = np.float32(-1e4).reshape(())


def only_the_head(tensors):
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")


@pytest.mark.parametrize("change", [without_prefix, with_buffers, only_the_head])
def test_variants_of_a_naming_are_understood(change, written):
    same_values(written(change))


def test_names_of_weights_from_tensorflow_and_of_a_bare_bert_are_understood(tmp_path):
    case = CASES["bert"]
    tensors = tensors_of(case, folder=tmp_path)
    renamed = {
        name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): x
        for name, x in tensors.items()
    }  # fmt: skip
    renamed["embeddings.position_ids"] = np.arange(LENGTH)[None]
    safetensors.save_file(renamed, tmp_path / FILE)
    found = case.load(str(tmp_path))(shapes_of(case.model, case.inputs))
    expected = named_leaves(variables_of(case.model, case.inputs))
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", [np.float16, jax.numpy.bfloat16, np.float64])
def test_other_precisions_are_read_as_the_numbers_they_hold(kind, tmp_path):
    tensors = {name: x.astype(kind) for name, x in tensors_of(folder=tmp_path).items()}
    with jax.enable_x64(True):
        safetensors.save_file({name: jax.numpy.asarray(x) for name, x in tensors.items()}, tmp_path / FILE)
    found = values_by(str(tmp_path))["params/stack/norm/scale"]
    expected = tensors["transformer.ln_f.weight"].astype(np.float32)
    np.testing.assert_array_equal(found.astype(np.float32), expected)
    assert replaced(SHAPES, {"params/stack/norm/scale": found})["params"]["stack"]["norm"]["scale"].dtype == np.float32


def shard(folder, change=lambda index: None):
    """Split the folder's file into two with an index, which `change` alters."""
    tensors = {name: np.asarray(x) for name, x in safetensors.load_file(folder / FILE).items()}
    (folder / FILE).unlink()
    names = sorted(tensors)
    index = {"metadata": {}, "weight_map": {name: f"{int(name > names[9])}.safetensors" for name in names}}
    for file in ("0.safetensors", "1.safetensors"):
        safetensors.save_file({n: x for n, x in tensors.items() if index["weight_map"][n] == file}, folder / file)
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def test_several_files_that_an_index_names_are_read_as_one(tmp_path):
    tensors_of(folder=tmp_path)
    shard(tmp_path)
    same_values(str(tmp_path))


def test_a_model_saved_into_a_folder_with_an_old_index_is_the_one_that_is_read(tmp_path):
    tensors_of(folder=tmp_path, seed=1)
    shard(tmp_path)
    tensors_of(folder=tmp_path)
    same_values(str(tmp_path))


# Faults: each is an error that names the leaf, the tensor or the file.


def absent(tensors):
    del tensors["transformer.ln_f.bias"]


def more(tensors):
    tensors["transformer.extra.weight"] = np.ones(2, np.float32)


def deeper(tensors):
    tensors["transformer.h.2.ln_1.weight"] = np.ones(12, np.float32)


def narrower(tensors):
    tensors["transformer.ln_f.bias"] = np.ones(11, np.float32)


def no_thirds(tensors):
    tensors["transformer.h.0.attn.c_attn.weight"] = np.ones((12, 35), np.float32)


def scalar(tensors):
    tensors["transformer.h.0.attn.c_attn.bias"] = np.ones((), np.float32)


def quantised(tensors):
    tensors["transformer.ln_f.bias"] = np.ones(12, np.int8)


def untied(tensors):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1


def both_prefixes(tensors):
    tensors["ln_f.bias"] = tensors["transformer.ln_f.bias"] + 1


FAULTS = [
    (absent, r"35 leaves match; 1 missing there \(.*keep\): params/stack/norm/bias$"),
    (more, r"1 unexpected \(.*drop\): transformer\.extra\.weight$"),
    (deeper, r"1 unexpected \(.*drop\): transformer\.h\.2\.ln_1\.weight$"),
    (narrower, r"1 of another shape \(resize, or keep\): params/stack/norm/bias \(\[11\] there, \[12\] here\)"),
    (no_thirds, r"3 of another shape .*layers_0/attention/query/kernel \(\[12, 35\] there\)"),
    (scalar, r"3 of another shape .*layers_0/attention/query/bias \(\[\] there\)"),
    (quantised, r"1 of another shape .*params/stack/norm/bias \(int8 there"),
    (untied, r"1 that should be equal \(drop one\): transformer\.wte\.weight is not lm_head\.weight"),
    (both_prefixes, r"1 that should be equal \(drop one\): transformer\.ln_f\.bias is not ln_f\.bias"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[change.__name__ for change, _ in FAULTS])
def test_a_fault_is_an_error_that_names_the_leaf_or_the_tensor(change, message, written):
    with pytest.raises(ConfigError, match=message):
        values_by(written(change))


def test_faults_are_told_together_and_a_scanned_stack_says_how_many_layers_are_there(written):
    def change(tensors):
        more(tensors)
        del tensors["transformer.h.1.ln_1.weight"]

    case = CASES["gpt2 scanned"]
    with pytest.raises(ConfigError) as error:
        case.load(written(change))(shapes_of(case.model, case.inputs))
    assert "params/stack/layers/attention_norm/scale (1 of 2 layers are there)" in str(error.value)
    assert "transformer.extra.weight" in str(error.value)


def damaged(folder):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-5])


def text(folder):
    (folder / FILE).write_text("weights")


def unknown_type(folder):
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / FILE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0")


def shard_absent(folder):
    shard(folder)
    (folder / "1.safetensors").unlink()


def index_is_text(folder):
    shard(folder)
    (folder / INDEX).write_text("[")


def index_without_a_map(folder):
    shard(folder)
    (folder / INDEX).write_text("[1]")


def index_promises_more(folder):
    shard(folder, lambda index: index["weight_map"].update(more="0.safetensors"))


def index_promises_less(folder):
    shard(folder, lambda index: index["weight_map"].pop("transformer.wte.weight"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged, r"model\.safetensors: is damaged or no \.safetensors file"),
        (text, r"model\.safetensors: is damaged or no \.safetensors file"),
        (unknown_type, r"model\.safetensors: 'x' is of the type F8_E4M3; expected one of F64"),
        (shard_absent, r"1\.safetensors: cannot be read: No such file"),
        (index_is_text, "is no index of weights"),
        (index_without_a_map, "is no index of weights"),
        (index_promises_more, r"0\.safetensors: 'more' is in the index, but not in it"),
        (index_promises_less, r"1\.safetensors: 'transformer\.wte\.weight' is in it, but not in the index"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(damage, message, tmp_path):
    tensors_of(folder=tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        gpt2.load(str(tmp_path))


def test_a_folder_without_weights_says_what_is_there_instead(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match=r"expected a \.safetensors file, or a folder .* there is pytorch_model\.bin"):
        gpt2.load(str(tmp_path))
    with pytest.raises(ConfigError, match="there is nothing"):
        gpt2.load(str(tmp_path / "nowhere"))


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    tensors_of(folder=tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxlab\[weights\]'"):
        gpt2.load(str(tmp_path))


# What a caller excuses.


def test_kept_leaves_are_left_to_chance_whatever_is_there_and_dropped_tensors_are_left_out(written):
    def change(tensors):
        absent(tensors)
        more(tensors)

    keep, drop = ("params/stack/norm/.*",), (r"transformer\.extra\..*",)
    found = values_by(written(change), keep=keep, drop=drop)
    assert named_leaves(SHAPES).keys() - found.keys() == {"params/stack/norm/scale", "params/stack/norm/bias"}
    found = values_by(written(narrower), keep=keep)
    assert "params/stack/norm/bias" not in found
    with pytest.raises(ConfigError, match="missing there"):  # what is dropped is not there
        values_by(written(), drop=(r"transformer\.ln_f\.bias",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ("params/haed/.*",)}, r"keep: 'params/haed/\.\*' matches none of the 36 names: params/embed"),
        ({"keep": ("params/stack/norm",)}, "keep: 'params/stack/norm' matches none"),  # whole names
        ({"drop": ("lm_head.*",)}, r"drop: 'lm_head\.\*' matches none of the 28 names: transformer\.h\.0"),
        ({"resize": ("positions",)}, "resize: 'positions' matches none"),
        ({"keep": ("(",)}, r"keep: '\(' is no regular expression"),
    ],
)
def test_an_expression_that_matches_nothing_is_an_error(options, message, written):
    with pytest.raises(ConfigError, match=message):
        values_by(written(), **options)


def test_what_became_of_every_leaf_is_logged_by_counts_and_in_detail_for_debugging(tmp_path, caplog):
    case = CASES["resnet by timm"]
    tensors = tensors_of(case, folder=tmp_path)
    tensors |= {f"layer{i}.0.bn1.num_batches_tracked": np.int64(3).reshape(()) for i in (1, 2)}
    tensors["extra"] = np.ones(2, np.float32)
    safetensors.save_file(tensors, tmp_path / FILE)
    with caplog.at_level(logging.DEBUG, "jaxlab"):
        case.load(str(tmp_path), keep=("params/Dense_0/.*",), drop=("extra",))(shapes_of(case.model, case.inputs))
    lines = [record.message for record in caplog.records if record.levelno == logging.INFO]
    leaves = len(named_leaves(shapes_of(case.model, case.inputs)))
    assert lines == [
        f"ResNet by torchvision and timm in {tmp_path}: {leaves - 2} leaves are loaded",
        "2 kept at random: params/Dense_0/bias, params/Dense_0/kernel",
        "1 dropped: extra",
        r"2 named .*\.num_batches_tracked, which hold nothing to load",
    ]
    pairs = [record.message for record in caplog.records if record.levelno == logging.DEBUG]
    assert "batch_stats/Block_1/BatchNorm_2/var is layer2.0.downsample.1.running_var" in pairs
    assert len(pairs) == leaves - 2


# Other sizes.


@pytest.mark.parametrize("tokens", [40, 57])
def test_a_vocabulary_grows_by_the_mean_of_its_vectors_or_is_cut(tokens, written):
    model = decoder.gpt2(TEXT._replace(meta={"vocabulary_size": tokens}), max_length=LENGTH, **TRANSFORMER)
    shapes, path = shapes_of(model, TOKENS_BT % 40), written()
    with pytest.raises(ConfigError, match=rf"token/embedding \(\[50, 12\] there, \[{tokens}, 12\] here\)"):
        gpt2.load(path)(shapes)
    found = gpt2.load(path, resize=(".*/token/embedding",))(shapes)["params/embed/token/embedding"]
    old = values_by(path)["params/embed/token/embedding"]
    np.testing.assert_array_equal(found[: min(tokens, 50)], old[:tokens])
    np.testing.assert_allclose(found[50:], np.tile(old.mean(0), (max(tokens - 50, 0), 1)), atol=1e-6)


@pytest.mark.parametrize("length", [9, 31])
def test_positions_of_a_shorter_row_stay_and_those_of_a_longer_one_lie_between_the_same_ends(length, written):
    model = decoder.gpt2(TEXT._replace(example={}), max_length=length, **TRANSFORMER)
    shapes, path = shapes_of(model, TOKENS_BT[:, :9]), written()
    values = gpt2.load(path, resize=(".*/position/embedding",))(shapes)
    old, found = (values_["params/embed/position/embedding"] for values_ in (values_by(path), values))
    if length == 31:
        np.testing.assert_array_equal(found[::2], old)
        np.testing.assert_allclose(found[1::2], (old[1:] + old[:-1]) / 2, atol=1e-6)
        return
    np.testing.assert_array_equal(found, old[:9])
    logits = [
        m.apply(replaced(s, v), TOKENS_BT[:, :9], train=False)["logits"]
        for m, s, v in ((model, shapes, values), (GPT2.model, SHAPES, values_by(path)))
    ]
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize(("old", "new"), [(4, 6), (4, 8), (6, 4), (1, 3), (3, 1)])
@pytest.mark.parametrize("first", [0, 1])
def test_a_grid_of_positions_is_interpolated_as_an_image_and_the_class_token_s_stays(old, new, first):
    value_ND = np.random.default_rng(0).normal(size=(first + old**2, 5)).astype(np.float32)
    found = resizing.grid(value_ND, (first + new**2, 5))
    image = value_ND[first:].reshape(old, old, 5)
    expected = jax.image.resize(image, (new, new, 5), "linear", antialias=False).reshape(new * new, 5)
    np.testing.assert_array_equal(found[:first], value_ND[:first])
    np.testing.assert_allclose(found[first:], expected, atol=1e-6)
    assert found.dtype == np.float32


def vit_of(side=32, classes=3, height=0, **options):
    spec = IMAGES._replace(
        example={"image": jax.ShapeDtypeStruct((height or side, side, 3), np.float32)},
        meta={"classes": tuple(map(str, range(classes)))},
    )
    model = vit.make(spec, patch_size=8, **{**TRANSFORMER, **options})
    return shapes_of(model, np.zeros((1, height or side, side, 3), np.float32))


def test_a_vit_is_loaded_for_larger_images_and_for_more_or_fewer_classes(tmp_path):
    tensors = tensors_of(CASES["vit by timm"], folder=tmp_path)
    path, shapes = str(tmp_path), vit_of(side=48, classes=5)
    with pytest.raises(ConfigError, match=r"3 of another shape .*params/head/bias.*params/positions"):
        vit_weights.timm(path)(shapes)
    found = vit_weights.timm(path, resize=("params/positions", "params/head/.*"))(shapes)
    assert found["params/positions"].shape == (37, 12)
    np.testing.assert_array_equal(found["params/head/kernel"][:, :3], tensors["head.weight"].T)
    np.testing.assert_allclose(found["params/head/kernel"][:, 4], tensors["head.weight"].mean(0), atol=1e-6)
    np.testing.assert_allclose(found["params/head/bias"][3], tensors["head.bias"].mean(), atol=1e-6)
    fewer = vit_weights.timm(path, resize=("params/head/.*",))(vit_of(classes=2))
    np.testing.assert_array_equal(fewer["params/head/kernel"], tensors["head.weight"][:2].T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 16}, r"params/positions \(\[17, 12\] there, \[9, 12\] here; it cannot be resized so\)"),
        ({"pool": "mean"}, r"params/positions \(\[17, 12\] there, \[16, 12\] here; it cannot be resized so\)"),
        ({"width": 16}, r"39 of another shape .*/output/kernel \(\[12, 12\] there, \[16, 16\] here; it cannot be"),
    ],
)
def test_what_is_no_square_or_of_another_width_is_not_resized(options, message, tmp_path):
    tensors_of(CASES["vit by timm"], folder=tmp_path)
    drop = ("cls_token",) if "pool" in options else ()
    with pytest.raises(ConfigError, match=message):
        vit_weights.timm(str(tmp_path), drop=drop, resize=("params/.*",))(vit_of(**options))


# The command line.

DIGITS = digits.make("train").spec
CONFIG = """
from jaxlab import spec
from jaxlab.run.base import base_config

def get_config():
    config = base_config()
    config.data.train = spec("jaxlab.data.digits:make", split="train")
    config.model = spec("jaxlab.models.vit:make", width=8, depth=1, heads=2, patch_size=4)
    config.init = spec("jaxlab.models.weights.vit:timm", path="weights", keep=("params/head/.*",))
    config.objective = spec("jaxlab.objectives.classify:make")
    config.optimizer = spec("optax:sgd", learning_rate=0.1)
    config.train.steps = 1
    return config
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Return the function that runs a command on the config beside the weights of its own model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "config.py").write_text(CONFIG)
    model = vit.make(DIGITS, width=8, depth=1, heads=2, patch_size=4)
    vit_weights.save("weights", variables_of(model, np.zeros((1, 8, 8, 1), np.float32)))

    def run(name, *flags):
        code = cli.main([name, "--config=config.py", *flags])
        return code, capsys.readouterr().err

    return run


def test_a_run_begins_from_the_weights_and_what_is_kept_from_its_seed(command):
    experiment = assemble(load_config("config.py"))
    values = dict(experiment.initial_values())
    states = jax.jit(lambda values: (experiment.init(values), experiment.init()))(values)
    found, plain = (named_leaves(state.params) for state in states)
    for name, value in found.items():
        expected = plain[name] if name.startswith("head") else values[f"params/{name}"]
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)


def test_check_accepts_the_weights_and_tells_what_it_found(command):
    code, err = command("check", "--config.train.batch_size=8")
    assert code == 0
    assert "init: ViT by timm in weights: 22 leaves are loaded" in err
    assert "init: 2 kept at random: params/head/bias, params/head/kernel" in err


@pytest.mark.slow
def test_a_run_s_log_tells_what_it_began_from(command, tmp_path):
    code, _ = command("train", "--workdir=run")
    assert code == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "ViT by timm in weights: 22 leaves are loaded" in log
    assert log.index("2 kept at random") < log.index("starting at step 0")


@pytest.mark.parametrize("name", ["check", "train"])
@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("--config.init.path=nowhere", "config.init: path='nowhere': expected a .safetensors file"),
        ("--config.init.keep[0]=params/haed/.*", "config.init: keep: 'params/haed/.*' matches none"),
        ("--config.model.width=12", "config.init: path='weights', ViT by timm: "),
        ("--config.init.factory=jaxlab.models.weights.vit:transformers", "config.init: path='weights', ViT by transf"),
        ("--config.init.factory=jaxlab.models.weights.vit:tim", "did you mean 'timm'"),
    ],
)
def test_weights_that_do_not_fit_end_with_2_and_leave_no_run(name, flag, part, command, tmp_path):
    code, err = command(name, flag, *(["--workdir=run"] if name == "train" else []))
    assert code == 2
    assert part in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
