"""The same random weights give the logits and gradients of Hugging Face's transformers, at the published sizes.

Needs torch and transformers, which are an extra: ``pip install -e '.[test,oracle]' && pytest -m oracle``.
A gradient is mapped as a weight is: it is put into the reference in the weights' place, saved, and loaded by our rules.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.tree import named_leaves, replaced
from jaxlab.core.types import DataSpec
from jaxlab.models import decoder, encoder, resnet, vit
from jaxlab.models.weights import bert, gpt2
from jaxlab.models.weights import resnet as resnet_weights
from jaxlab.models.weights import vit as vit_weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
LOGITS, GRADIENT = 1e-4, 1e-3
B, T = 2, 24
IMAGES_BHWC = np.random.default_rng(0).normal(size=(B, 224, 224, 3)).astype(np.float32)
MASK_BT = (np.arange(T) < np.array([[T - 7], [T]])).astype(np.float32)
CLASSES = {"classes": tuple(map(str, range(1000)))}
IMAGES = DataSpec({"image": jax.ShapeDtypeStruct(IMAGES_BHWC.shape[1:], np.float32)}, 10, CLASSES)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def text(vocabulary):
    """Return data and tokens; none is 0, BERT's padding, whose vector gets no gradient in transformers."""
    spec = DataSpec({"tokens": jax.ShapeDtypeStruct((T,), np.int32)}, 10, {"vocabulary_size": vocabulary, **CLASSES})
    return spec, np.random.default_rng(0).integers(1, vocabulary, (B, T)).astype(np.int32)


def shaken(model):
    """Move all weights away from where they start, so that no bias is 0 and no scale 1."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    return model.eval()


def compare(reference, inputs, model, fields, load, folder, mask=None, tolerances=(LOGITS, GRADIENT)):
    """Compare logits and every parameter's gradient.

    Args:
      reference: of transformers, in evaluation.
      inputs: the reference's, by name.
      model: ours.
      fields: ours, by place.
      load: from a folder to an initialiser.
      folder: to write to.
      mask: 1 where a result counts.
      tolerances: absolute of the logits, relative of each gradient's norm.
    """
    reference.save_pretrained(folder / "weights")
    variables = jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x, train=False), *fields)
    values = load(str(folder / "weights"))(variables)
    variables = jax.tree.unflatten(jax.tree.structure(variables), [values[name] for name in named_leaves(variables)])

    @jax.jit
    def ours(params, weights):
        def total(params):
            logits = model.apply({**variables, "params": params}, *fields, train=False)["logits"]
            return jnp.sum(logits * weights), logits

        return jax.grad(total, has_aux=True)(params)

    expected = reference(**inputs).logits
    where = np.ones((), np.float32) if mask is None else mask
    weights = where * np.cos(np.arange(expected.numel(), dtype=np.float32)).reshape(expected.shape)
    torch.sum(expected * torch.tensor(weights)).backward()
    gradients, found = ours(variables["params"], weights)
    np.testing.assert_allclose(found * where, expected.detach().numpy() * where, atol=tolerances[0], rtol=0)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    reference.save_pretrained(folder / "gradients")
    theirs = load(str(folder / "gradients"))(variables)
    for name, gradient in named_leaves(gradients).items():
        wanted = theirs[f"params/{name}"]
        size = np.linalg.norm(wanted)
        if name.endswith("key/bias"):  # adds the same to all scores of a query: what is there is rounding
            size = np.linalg.norm(theirs[f"params/{name}".replace("key/bias", "query/bias")])
        assert size > 0, name
        assert np.linalg.norm(gradient - wanted) < tolerances[1] * size, name


def test_gpt2_small(tmp_path):
    data, tokens_BT = text(50_257)
    reference = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config()))
    inputs = {"input_ids": torch.tensor(tokens_BT).long()}
    compare(reference, inputs, decoder.gpt2(data), (tokens_BT,), gpt2.load, tmp_path)


def test_bert_base_with_padding_and_two_segments(tmp_path):
    data, tokens_BT = text(30_522)
    segments_BT = (np.arange(T) > T // 3).astype(np.int32) * np.ones((B, 1), np.int32)
    reference = shaken(transformers.BertForMaskedLM(transformers.BertConfig()))
    inputs = {
        "input_ids": torch.tensor(tokens_BT).long(),
        "attention_mask": torch.tensor(MASK_BT),
        "token_type_ids": torch.tensor(segments_BT).long(),
    }
    fields = (tokens_BT, MASK_BT, segments_BT)
    compare(reference, inputs, encoder.masked(data, pooler=False), fields, bert.load, tmp_path, MASK_BT[..., None])


def test_bert_base_that_classifies(tmp_path):
    data, tokens_BT = text(30_522)
    reference = shaken(transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=1000)))
    inputs = {"input_ids": torch.tensor(tokens_BT).long(), "attention_mask": torch.tensor(MASK_BT)}
    model = encoder.make(data, width=768, depth=12, heads=12, pooling="first")
    compare(reference, inputs, model, (tokens_BT, MASK_BT), bert.load, tmp_path)


def pixels():
    return {"pixel_values": torch.tensor(IMAGES_BHWC).permute(0, 3, 1, 2)}


def test_vit_b16(tmp_path):
    config = transformers.ViTConfig(num_labels=1000, layer_norm_eps=1e-6)  # as the paper's code and timm have it
    reference = shaken(transformers.ViTForImageClassification(config))
    model = vit.make(IMAGES, width=768, heads=12)
    compare(reference, pixels(), model, (IMAGES_BHWC,), vit_weights.transformers, tmp_path)


def resnet50(bias=0.0):
    """Return the reference, `bias` added to those of all normalisations, with running moments that are the images'."""
    reference = shaken(transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)))
    with torch.no_grad():
        for name, weight in reference.named_parameters():
            if name.endswith("normalization.bias"):
                weight.add_(bias)
    for layer in reference.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        reference.train()(**pixels())
    return reference.eval()


def test_resnet50(tmp_path):
    """With biases that keep most rectifiers open, as rounding is not what is tested.

    At random ones the gradients of single precision are 2% off those of double precision, in PyTorch as here: rounding
    opens and closes rectifiers, and each block amplifies it.
    """
    reference = resnet50(bias=3.0)
    model = resnet.resnet50(IMAGES, None)
    compare(reference, pixels(), model, (IMAGES_BHWC,), resnet_weights.transformers, tmp_path)


def test_resnet50_with_any_weights_in_double_precision(tmp_path):
    reference = resnet50().double()
    inputs = {name: value.double() for name, value in pixels().items()}
    model, fields = resnet.resnet50(IMAGES, None), (IMAGES_BHWC.astype(np.float64),)
    with jax.enable_x64(True):
        compare(reference, inputs, model, fields, resnet_weights.transformers, tmp_path, tolerances=(1e-9, 1e-9))


TINY_TEXT = {"vocab_size": 60, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 12,
             "intermediate_size": 48, "max_position_embeddings": 24}  # fmt: skip


def tiny(name):
    """Return a tiny reference, our model, its input, and what loads and saves it."""
    data, tokens_BT = text(60)
    images_BHWC = IMAGES_BHWC[:, :32, :32]
    spec = IMAGES._replace(example={"image": jax.ShapeDtypeStruct((32, 32, 3), np.float32)})
    if name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=60, n_positions=24, n_embd=12, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        model = decoder.gpt2(data, max_length=24, width=12, depth=2, heads=2)
        return transformers.GPT2LMHeadModel(config), model, tokens_BT, gpt2.load, gpt2.save
    if name == "bert":
        model = encoder.masked(data, max_length=24, width=12, depth=2, heads=2, pooler=False)
        return (
            transformers.BertForMaskedLM(transformers.BertConfig(**TINY_TEXT)),
            model,
            tokens_BT,
            bert.load,
            bert.save,
        )
    if name == "vit":
        config = transformers.ViTConfig(
            hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32,
            patch_size=8, num_labels=1000,
        )  # fmt: skip
        model = vit.make(spec, width=12, depth=2, heads=2, patch_size=8)
        return (
            transformers.ViTForImageClassification(config), model, images_BHWC, vit_weights.transformers,
            lambda path, variables: vit_weights.save(path, variables, vit_weights.TRANSFORMERS),
        )  # fmt: skip
    widths = (16, 24) if name == "bottleneck" else (4, 6)
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=list(widths), depths=[2, 1], layer_type=name, num_labels=1000
    )
    model = resnet.make(spec, None, block=name, blocks=(2, 1), channels=(4, 6), stem="imagenet")
    return (
        transformers.ResNetForImageClassification(config), model, images_BHWC, resnet_weights.transformers,
        lambda path, variables: resnet_weights.save(path, variables, resnet_weights.TRANSFORMERS),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "bert", "vit", "basic", "bottleneck"])
def test_transformers_reads_what_is_saved_and_finds_nothing_missing(name, tmp_path):
    reference, model, inputs, load, save = tiny(name)
    shaken(reference).save_pretrained(tmp_path / "theirs")
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), inputs)
    variables = replaced(variables, load(str(tmp_path / "theirs"))(variables))
    save(str(tmp_path / "ours"), variables)
    reference.config.save_pretrained(tmp_path / "ours")
    again, account = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert all(key.endswith("num_batches_tracked") for key in account["missing_keys"])  # PyTorch starts them at 0
    assert not account["unexpected_keys"]
    assert not account["mismatched_keys"]
    found, expected = again.state_dict(), reference.state_dict()
    assert found.keys() == expected.keys()
    for key in expected.keys() - account["missing_keys"]:
        assert torch.equal(found[key], expected[key]), key


def test_the_golden_values_are_what_transformers_gives_now(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    golden_values = importlib.import_module("golden_values")
    kept, found = json.loads(golden_values.golden.FILE.read_text()), golden_values.all_values()
    assert kept.keys() == found.keys()
    for name in kept.keys() - {"made_by"}:
        np.testing.assert_allclose(kept[name]["logits"], found[name]["logits"], atol=1e-5)
        assert kept[name]["gradients"].keys() == found[name]["gradients"].keys()
        rounding = 1e-6 * max(norm for _, norm in found[name]["gradients"].values())
        for parameter, (total, norm) in found[name]["gradients"].items():
            np.testing.assert_allclose(kept[name]["gradients"][parameter], (total, norm), atol=1e-4 * norm + rounding)
