"""docs/weights.md: its configs begin from such weights, and its functions do what they say."""

import re
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from weight_cases import CASES, IMAGES, TEXT, shapes_of, variables_of

from jaxlab.core.config import build, spec
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import TrainState
from jaxlab.models import encoder
from jaxlab.models.weights import bert

safetensors = pytest.importorskip("safetensors.numpy")
PAGE = (Path(__file__).parents[2] / "docs/weights.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CONFIGS = [block for block in BLOCKS if "config.init" in block]
EXPORT, EMBEDDER = (next(block for block in BLOCKS if f"def {name}(" in block) for name in ("export", "embedder"))
FOLDERS = {
    "gpt2": "gpt2", "bert": "bert", "vit_timm": "vit by timm", "vit": "vit by transformers",
    "resnet_timm": "bottleneck by timm", "resnet": "bottleneck by transformers",
}  # fmt: skip
SMALL = {
    "width": 12, "depth": 2, "heads": 2, "patch_size": 8, "max_length": 16, "vocabulary_size": 50, "blocks": (2, 1),
    "channels": (4, 6),
}  # fmt: skip


def write(folder: Path) -> None:
    """Write a small model into each folder that the page names."""
    for name, case in FOLDERS.items():
        CASES[case].save(str(folder / name), variables_of(CASES[case].model, CASES[case].inputs))
    tensors = safetensors.load_file(folder / "bert" / "model.safetensors")
    tensors["cls.seq_relationship.weight"] = np.ones((2, 12), np.float32)
    safetensors.save_file(tensors, folder / "bert" / "model.safetensors")


@pytest.mark.parametrize("block", CONFIGS, ids=[re.findall(r'path="(\w+)"', block)[0] for block in CONFIGS])
def test_a_config_of_the_page_begins_from_such_weights(block, tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = ConfigDict()
    exec(compile(block, "docs/weights.md", "exec"), {"config": config, "spec": spec})
    image = re.search("vit|resnet", block)
    data, inputs = (IMAGES, CASES["vit by timm"].inputs) if image else (TEXT, CASES["gpt2"].inputs)
    assert build(config.model, data=data, batch_axis=None) is not None  # at its full size
    signature = {"resnet": ("blocks", "channels"), "vit:make": ("width", "depth", "heads", "patch_size")}
    text_options = ("width", "depth", "heads", "max_length", "vocabulary_size")
    names = next((names for part, names in signature.items() if part in config.model.factory), text_options)
    config.model.update({name: SMALL[name] for name in names})
    shapes = shapes_of(build(config.model, data=data, batch_axis=None), inputs)
    values = build(config.init)(shapes)
    kept = {name for name in named_leaves(shapes) for pattern in config.init.keep if re.match(pattern, name)}
    assert values.keys() == named_leaves(shapes).keys() - kept
    assert bool(kept) == bool(config.init.keep)


def test_every_loader_of_the_page_has_its_config():
    table = set(re.findall(r"`(jaxlab\.models\.weights\.\w+:\w+)`", PAGE))
    assert table == {factory for block in CONFIGS for factory in re.findall(r'"(jaxlab\.models\.weights[^"]+)"', block)}
    assert len(table) == 6


def test_the_page_s_hook_saves_the_parameters(tmp_path):
    names = {}
    exec(compile(EXPORT, "docs/weights.md", "exec"), names)
    case = CASES["gpt2"]
    variables = variables_of(case.model, case.inputs)
    periodic = names["export"](7, str(tmp_path / "out"))
    periodic.hook(7, TrainState(np.int32(7), variables["params"], {}, (), None))
    found = case.load(str(tmp_path / "out"))(shapes_of(case.model, case.inputs))
    expected = named_leaves(variables)
    assert periodic.every == 7
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


@pytest.fixture
def embed(tmp_path):
    """Return the page's function with a small encoder and a tokenizer of a few words."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "a", "cat", "dog", "sat", "ran", "."])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    data = TEXT._replace(example={}, meta={"vocabulary_size": len(words)})
    model = encoder.masked(data, width=12, depth=2, heads=2, head=False)
    tokens = np.zeros((1, 6), np.int32)
    bert.save(str(tmp_path), variables_of(model, tokens))
    names = {}
    exec(compile(EMBEDDER, "docs/weights.md", "exec"), names)
    return names["embedder"](str(tmp_path), length=6, width=12, depth=2, heads=2)


def test_the_page_s_embeddings_have_length_one_and_are_of_the_sentence_alone(embed):
    both, alone, again = embed(["a cat sat .", "a dog"]), embed(["a dog"]), embed(["a dog", "a cat sat ."])
    assert both.shape == (2, 12)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(both[1:], alone, atol=1e-6)
    np.testing.assert_allclose(both[::-1], again, atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-3
