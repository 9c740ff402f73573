"""Arguments and data with which the tests of the contracts try factories; small, but real in form.

A factory with parameters that neither a default nor the context gives needs a line in `CASES`; paths there lie in the
folder that `write_files` fills.
"""

import functools
import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import contract_stand_ins as stand_ins
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.core.types import Outputs, PyTree, Source
from jaxlab.data import mixture, splits, table_source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.subset import Subset
from jaxlab.models.weights import bert, gpt2, resnet, vit

CLASSES, SIZE = 3, 12
_random = np.random.default_rng(0)
_label = np.arange(SIZE) % CLASSES
_facts = {
    "classes": ("a", "b", "c"), "vocabulary_size": 20, "pad_id": 0, "specials": {"pad": 0},
    "pieces": (b"", *(b"abc"[: 1 + n % 3] for n in range(1, 20))),
}  # fmt: skip
_words = ("the", "cat", "sat", "on", "a", "mat", "naïve", "日本", "x🙂", "and", "ran", "far")


def _objects(values: Iterable[str | None]) -> np.ndarray:
    array = np.empty(SIZE, object)
    array[:] = list(values)
    return array


IMAGES = ArraySource({"image": _random.integers(0, 256, (SIZE, 8, 8, 3)).astype(np.uint8), "label": _label}, _facts)
PICTURES = ArraySource({"image": _random.random((SIZE, 8, 8, 3)).astype(np.float32), "label": _label}, _facts)
TOKENS = ArraySource(
    {
        "tokens": _random.integers(5, 20, (SIZE, 10)).astype(np.int32),
        "token_mask": (np.arange(10) < np.arange(SIZE)[:, None]).astype(np.float32),  # lengths 0 to 10
        "label": _label,
    },
    _facts,
)
TEXTS = ColumnSource({"text": _objects(" ".join(np.roll(_words, n)[: 3 + n]) for n in range(SIZE)), "label": _label})
TABLE = ColumnSource(
    {
        "width": np.where(np.arange(SIZE) % 5 == 2, np.nan, np.arange(SIZE) ** 2),
        "height": np.linspace(-1, 3, SIZE),
        "colour": _objects([None, "red", "green", "red", "blue", "", "red", "green", "red", "grey", "pink", None]),
        "day": _objects(f"2024-0{1 + n % 9}-1{n % 10}T{n:02}:30:00" if n != 4 else None for n in range(SIZE)),
        "label": _label,
    },
    _facts,
)
CODED = ArraySource(
    {
        "features": _random.normal(size=(SIZE, 3)).astype(np.float32),
        "colour": (np.arange(SIZE) % 4).astype(np.int32),
        "shop": (np.arange(SIZE) % 5).astype(np.int32),
        "label": _label,
    },
    {**_facts, "categories:colour": ("(unknown)", "red", "green", "blue")},
)
"""A table whose texts are encoded."""
CHOICES = ArraySource(
    {
        "user": (np.arange(SIZE) % 4).astype(np.int32),
        "item": (np.arange(SIZE) % 7).astype(np.int32),
        "rating": np.linspace(1, 5, SIZE).astype(np.float32),
        "items": _random.integers(0, 7, (SIZE, 5)).astype(np.int32),
        "item_mask": (np.arange(5) < np.arange(SIZE)[:, None]).astype(np.float32),
    },
    {"categories:user": tuple("abcd"), "categories:item": tuple("abcdefg"), "categories:items": tuple("abcdefg")},
)
"""What users chose: one item a row, and those before it."""
SIGNALS = ArraySource(
    {
        "past": _random.normal(size=(SIZE, 5, 2)).astype(np.float32),
        "past_mask": (np.arange(5) < np.arange(SIZE)[:, None]).astype(np.float32),
        "target": _random.normal(size=(SIZE, 2)).astype(np.float32),
    }
)
"""Windows of lengths 0 to 5."""
SAMPLES = {
    "jaxlab.data.table": TABLE, "jaxlab.data.table_categories": TABLE, "jaxlab.data.table_numeric": TABLE,
    "jaxlab.data.text_noise": TOKENS, "jaxlab.data.tokenize": TEXTS, "jaxlab.data.negatives": CHOICES,
    "jaxlab.data.sampling:count_codes": CHOICES, "jaxlab.data.seen": CHOICES,
}  # fmt: skip
"""Rows for the transforms of a module; those of any other get `IMAGES`."""


class Trained(NamedTuple):
    """With what a model is tried: rows, and the objective that calls it."""

    source: Source
    objective: ConfigDict


class Judged(NamedTuple):
    """With what an objective is tried: rows, and a model's stand-in, whose results for a row are of that row alone."""

    source: Source
    model: Callable[..., Outputs]
    adds_up: bool = True  # over parts of a batch: not so where other rows are the negatives


class Begun(NamedTuple):
    """With what an initialiser is tried: a model, rows for it, and what writes the file that it reads."""

    model: ConfigDict
    source: Source
    save: Callable[[str, PyTree], None]


CLASSIFIED = Trained(PICTURES, spec("jaxlab.objectives.classify:make"))
_coded = Trained(CODED, spec("jaxlab.objectives.classify:make", inputs=("features", "colour", "shop")))
_windows = {
    name: _random.normal(size=(SIZE, *shape)).astype(np.float32)
    for name, shape in (("past", (5, 2)), ("future", (3, 4)), ("target", (3, 2)))
}
_forecast = Trained(ArraySource(_windows), spec("jaxlab.objectives.regress:make", inputs=("past", "future")))
_text = Trained(TOKENS, spec("jaxlab.objectives.classify:make", inputs=("tokens", "token_mask")))
_rated = {"inputs": ("user", "item"), "target": "rating"}
TRAINED: dict[str, Trained] = {
    "jaxlab.models.autoencoder": Trained(PICTURES, spec("jaxlab.objectives.reconstruct:make")),
    "jaxlab.models.decoder": Trained(
        TOKENS, spec("jaxlab.objectives.language:causal", inputs=("tokens", "token_mask"))
    ),
    "jaxlab.models.encoder": _text,
    "jaxlab.models.encoder:masked": Trained(stand_ins.HIDDEN, spec("jaxlab.objectives.language:masked")),
    "jaxlab.models.encoder_decoder": Trained(stand_ins.PAIRS, spec("jaxlab.objectives.seq2seq:make")),
    "jaxlab.models.factorisation": Trained(
        CHOICES, spec("jaxlab.objectives.regress:make", output="prediction", **_rated)
    ),
    "jaxlab.models.forecast": _forecast,
    "jaxlab.models.ft_transformer": _coded,
    "jaxlab.models.lstm": _text,
    "jaxlab.models.lstm:language": Trained(
        TOKENS, spec("jaxlab.objectives.language:causal", inputs=("tokens", "token_mask"))
    ),
    "jaxlab.models.sasrec": Trained(
        CHOICES,
        spec(
            "jaxlab.objectives.language:causal", inputs=("items", "item_mask"), tokens="items", token_mask="item_mask"
        ),
    ),
    "jaxlab.models.sequence_autoencoder": Trained(
        SIGNALS,
        spec("jaxlab.objectives.reconstruct:make", inputs=("past", "past_mask"), target_mask="past_mask"),
    ),
    "jaxlab.models.seq2seq_lstm": Trained(stand_ins.PAIRS, spec("jaxlab.objectives.seq2seq:make")),
    "jaxlab.models.tabular": _coded,
    "jaxlab.models.tcn": _forecast,
    "jaxlab.models.tcn:classify": _text,
    # by its products: other rows as negatives are those of one device, and differ with their number
    "jaxlab.models.two_tower": Trained(CHOICES, spec("jaxlab.objectives.regress:make", output="score", **_rated)),
    # by its mean: what it draws differs from device to device
    "jaxlab.models.vae": Trained(SIGNALS, spec("jaxlab.objectives.regress:make", output="mean")),
}
"""By factory or module of models; for any other, `CLASSIFIED`."""
JUDGED: dict[str, Judged] = {
    "jaxlab.objectives.classify": Judged(PICTURES, stand_ins.linear),
    "jaxlab.objectives.classify:multi_label": Judged(stand_ins.LABELS, stand_ins.labeller),
    "jaxlab.objectives.contrast": Judged(stand_ins.VIEWS, stand_ins.embedder, adds_up=False),
    "jaxlab.objectives.distill": Judged(stand_ins.TAUGHT, stand_ins.linear),
    "jaxlab.objectives.language:causal": Judged(TOKENS, stand_ins.bigrams),
    "jaxlab.objectives.language:masked": Judged(stand_ins.HIDDEN, stand_ins.bigrams),
    "jaxlab.objectives.rank": Judged(stand_ins.CHOICES, stand_ins.recommender),
    "jaxlab.objectives.rank:in_batch_softmax": Judged(stand_ins.CHOICES, stand_ins.recommender, adds_up=False),
    "jaxlab.objectives.reconstruct": Judged(PICTURES, stand_ins.autoencoder),
    "jaxlab.objectives.regress": Judged(stand_ins.WINDOWS, stand_ins.forecaster),
    "jaxlab.objectives.regularise": Judged(PICTURES, stand_ins.linear),
    "jaxlab.objectives.seq2seq": Judged(stand_ins.PAIRS, stand_ins.translator),
}
"""By factory or module of objectives; each needs one."""
MEASURED: dict[str, ConfigDict] = {
    "jaxlab.metrics.classify": spec("jaxlab.objectives.classify:make"),
    "jaxlab.metrics.forecast": spec("jaxlab.objectives.regress:make"),
    "jaxlab.metrics.language": spec("jaxlab.objectives.language:causal"),
    "jaxlab.metrics.ranking": spec("jaxlab.objectives.language:causal"),
    "jaxlab.metrics.regress": spec("jaxlab.objectives.regress:make"),
}
"""By factory or module of metrics: the objective whose results it measures; each needs one."""

_small = {"width": 8, "depth": 1, "heads": 2}
_vit = spec("jaxlab.models.vit:make", patch_size=4, **_small)
_resnet = spec("jaxlab.models.resnet:make", blocks=(1, 1), channels=(4, 6))
INITIALISED: dict[str, Begun] = {
    "jaxlab.models.weights.bert:load": Begun(spec("jaxlab.models.encoder:masked", **_small), TOKENS, bert.save),
    "jaxlab.models.weights.gpt2:load": Begun(spec("jaxlab.models.decoder:gpt2", **_small), TOKENS, gpt2.save),
    "jaxlab.models.weights.resnet:timm": Begun(_resnet, PICTURES, resnet.save),
    "jaxlab.models.weights.resnet:transformers": Begun(
        _resnet, PICTURES, functools.partial(resnet.save, family=resnet.TRANSFORMERS)
    ),
    "jaxlab.models.weights.vit:timm": Begun(_vit, PICTURES, vit.save),
    "jaxlab.models.weights.vit:transformers": Begun(
        _vit, PICTURES, functools.partial(vit.save, family=vit.TRANSFORMERS)
    ),
}
"""By factory of initialisers; each needs one."""

MIXED = mixture.make((IMAGES, Subset(IMAGES, np.array([0, 3, 6, 1]), {})), (3.0, 1.0))
"""A training source for sampling rules: classes of different sizes, from two sources."""

EXTRAS = {
    "jaxlab.data.huggingface:make": "datasets", "jaxlab.data.smote:make": "imblearn",
    **{f"jaxlab.data.tokenize:{kind}": "tokenizers" for kind in ("bpe", "wordpiece", "unigram")},
    **dict.fromkeys(INITIALISED, "safetensors"),
    "jaxlab.metrics.text:bleu": "sacrebleu", "jaxlab.metrics.text:chrf": "sacrebleu",
}  # fmt: skip
"""Factories that work where an optional library is installed."""

_table = spec("jaxlab.data.table_source:make", path="shirts.csv", target="size", group="shop", time="week")
_numeric = spec("jaxlab.data.table_source:make", path="shirts.csv", target="size", features=("width", "height"))
_choices = spec("jaxlab.data.table_source:make", path="shirts.csv", features=("colour",), group="shop", time="week")
_complete = spec("jaxlab.data.splits:drop_missing", source=_numeric)
_classified, _every = spec("jaxlab.objectives.classify:make"), ((".*", 0.1),)
_lines = spec("jaxlab.data.text_source:lines", path="lines.txt")
CASES: dict[str, tuple[dict[str, Any], ...]] = {
    "jaxlab.data.huggingface:make": ({"path": "saved", "label": "kind"}, {"path": "saved", "columns": ("text",)}),
    "jaxlab.data.histories:make": (
        {"source": _choices, "length": 4, "user": "colour", "item": "group"},
        {"source": _choices, "part": "test", "user": "group", "item": "colour", "by": "time", "padding": "left",
         "shares": (0.5, 0.1, 0.4)},
    ),
    "jaxlab.data.image_folder:make": (
        {"path": "pictures", "size": (8, 8)},
        {"path": "pictures", "size": (8, 6), "channels": 1, "in_memory_bytes": 0},
    ),
    "jaxlab.data.fields:drop": ({"names": ("label",)},),
    "jaxlab.data.images:standardise": ({"mean": (0.5,), "std": (0.25,)},),
    "jaxlab.data.memmap_source:make": ({"path": "arrays", "classes": ("a", "b", "c")},),
    "jaxlab.data.mixture:make": ({"sources": (_table, _table), "weights": (3.0, 1.0)},),
    "jaxlab.data.negatives:popularity": ({"count": 3}, {"item": "items", "mask": "item_mask"}),
    "jaxlab.data.packed:make": ({"source": _lines, "length": 16, "cache": "cache"},),
    "jaxlab.data.smote:make": ({"source": _complete, "neighbours": 1},),
    "jaxlab.data.splits:drop_missing": ({"source": _table},),
    "jaxlab.data.splits:filtered": ({"source": _table, "path": "drop.json"},),
    "jaxlab.data.splits:fold": tuple(
        {"source": _table, "by": by, "folds": 3, "part": part} for by in splits.FIELDS for part in ("train", "valid")
    ),
    "jaxlab.data.splits:from_file": ({"source": _table, "path": "split.json", "part": "valid"},),
    "jaxlab.data.splits:part": (
        *({"source": _table, "by": by, "fractions": (("train", 0.6), ("test", 0.4))} for by in splits.FIELDS),
        {"source": spec("jaxlab.data.splits:part", source=_table, fractions=(("train", 0.8),)), "seed": 1,
         "fractions": (("train", 0.6), ("valid", 0.4)), "part": "valid"},
    ),
    "jaxlab.data.table:assemble": ({"columns": ("height",)},),
    "jaxlab.data.table:date_parts": ({"column": "day"}, {"column": "day", "cyclic": True, "keep": True}),
    "jaxlab.data.table_categories:cross": ({"columns": ("colour", "day")},),
    "jaxlab.data.table_categories:one_hot": ({}, {"max_categories": 2, "unknown": "zeros"}),
    "jaxlab.data.table_numeric:scale": ({}, {"method": "robust"}, {"method": "minmax"}),
    "jaxlab.data.table_source:make": (
        {"path": "shirts.csv", "target": "size", "group": "shop", "time": "week"},
        {"path": "shirts.csv", "target": "height", "features": ("width",)},
    ),
    "jaxlab.data.text_noise:span_masking": ({"mask_id": 4, "vocabulary_size": 20, "special_ids": (0, 1, 2, 3)},),
    "jaxlab.data.text_noise:token_dropout": ({"replacement_id": 1, "probability": 0.5},),
    "jaxlab.data.text_source:documents": ({"path": "documents"},),
    "jaxlab.data.text_source:lines": ({"path": "lines.txt"}, {"path": "lines.txt", "label": "labels.txt"}),
    "jaxlab.data.text_source:parallel": ({"source_path": "lines.txt", "target_path": "labels.txt"},),
    "jaxlab.data.tfds_source:make": ({"name": "fashion_mnist"}, {"name": "fashion_mnist", "in_memory_bytes": 0}),
    "jaxlab.data.windows:make": (
        {"source": _table, "length": 3, "horizon": 2, "inputs": ("width",), "targets": ("height",)},
        {"source": _table, "length": 1, "horizon": 1, "targets": ("height",), "known_future": ("time",), "stride": 2},
    ),
    "jaxlab.models.autoencoder:make": ({"hidden": (8,), "width": 4},),
    "jaxlab.models.convnext:make": (
        {"blocks": (1, 1), "channels": (4, 6), "patch_size": 2, "kernel_size": 3, "layer_scale": 0.5,
         "stochastic_depth": 0.0},
    ),
    "jaxlab.models.decoder:make": (
        {"width": 8, "depth": 2, "heads": 2, "kv_heads": 1, "scan": True, "remat": "full"},
    ),
    "jaxlab.models.decoder:gpt2": ({"width": 8, "depth": 1, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0},),
    "jaxlab.models.encoder:make": (
        {"width": 8, "depth": 1, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0, "pooling": "mean"},
        {"width": 8, "depth": 1, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0, "pooling": "first"},
    ),
    "jaxlab.models.encoder:masked": ({"width": 8, "depth": 1, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0},),
    "jaxlab.models.encoder_decoder:make": ({"width": 8, "depth": 1, "heads": 2, "dropout": 0.0},),
    "jaxlab.models.factorisation:make": ({"factors": 3},),
    "jaxlab.models.forecast:make": (
        {"width": 8, "heads": 2, "dropout": 0.0}, {"width": 8, "heads": 2, "dropout": 0.0, "output": "quantile"},
    ),
    "jaxlab.models.ft_transformer:make": (
        {"categories": ("colour", "shop"), "sizes": (("shop", 5),), "width": 8, "depth": 2, "heads": 2, "hidden": 8,
         "attention_dropout": 0.0, "hidden_dropout": 0.0},
    ),
    "jaxlab.models.lstm:make": tuple(
        {"width": 4, "features": 5, "cell": cell, "pooling": pooling, "dropout": 0.0}
        for cell, pooling in (("lstm", "last"), ("gru", "max"))
    ),
    "jaxlab.models.lstm:language": ({"width": 4, "features": 5, "dropout": 0.0},),
    "jaxlab.models.resnet:make": (
        {"blocks": (1, 1), "channels": (4, 6), "stem": "small_pool", "shortcut": "pool", "zero_init": False},
        {"block": "bottleneck", "blocks": (1,), "channels": (4,), "stem": "imagenet", "zero_init": False},
    ),
    **{
        f"jaxlab.models.resnet:resnet{depth}": ({"blocks": (1, 1), "channels": (4, 6), "stem": "small"},)
        for depth in (18, 34, 50)
    },
    "jaxlab.models.resnet:wide": ({"depth": 10, "width": 1},),
    "jaxlab.models.sasrec:make": ({"width": 8, "depth": 1, "heads": 2, "dropout": 0.0},),
    "jaxlab.models.seq2seq_lstm:make": ({"width": 4, "features": 5, "dropout": 0.0},),
    "jaxlab.models.sequence_autoencoder:make": tuple(
        {"cell": cell, "features": 4, "width": 3} for cell in ("lstm", "gru")
    ),
    "jaxlab.models.tabular:make": (
        {"categories": ("colour", "shop"), "sizes": (("shop", 5),), "hidden": (8,), "batch_norm": True},
    ),
    "jaxlab.models.tcn:make": ({"channels": (4, 5), "dropout": 0.0},),
    "jaxlab.models.tcn:classify": ({"channels": (4, 5), "dropout": 0.0},),
    "jaxlab.models.two_tower:make": ({"embedding_width": 3, "hidden": (8,), "width": 4},),
    "jaxlab.models.vae:make": ({"field": "past", "hidden": (8,), "width": 2},),
    "jaxlab.objectives.regularise:l2": ({"objective": _classified}, {"objective": _classified, "rules": _every}),
    "jaxlab.objectives.regularise:activation": ({"objective": _classified},),
    "jaxlab.objectives.regularise:consistency": ({"objective": _classified},),
    "jaxlab.objectives.rank:sampled_softmax": ({}, {"correction": "uniform"}),
    "jaxlab.objectives.reconstruct:elbo": ({}, {"likelihood": "bernoulli", "beta": 0.5}),
    "jaxlab.models.vit:make": tuple(
        {"width": 8, "depth": 1, "heads": 2, "patch_size": 4, "pool": pool} for pool in ("token", "mean")
    ),
    **{factory: ({"path": "weights"},) for factory in INITIALISED},
    "jaxlab.optim.chain:make": ({"transforms": (spec("optax:sgd", learning_rate=0.1),)},),
    "jaxlab.optim.rules:make": (
        {"optimizer": spec("optax:adam", learning_rate=0.1), "learning_rate": 0.1},
        {"optimizer": spec("optax:sgd", learning_rate=0.1), "learning_rate": 0.1,
         "weight_decay": ((".*/kernel", 0.1), (".*", 0.0)), "freeze": ((".*/bias", True), (".*", False))},
    ),
    "jaxlab.optim.rules:where": ({"rules": ((".*/kernel", True), (".*", False))},),
}  # fmt: skip


def write_files(folder: Path) -> None:
    """Write the small files that `CASES` name."""
    from PIL import Image

    rows = [f"{n * n if n % 5 else ''},{n / 7},{'red' if n % 2 else 'blue'},{'SML'[n % 3]},{'ABCD'[n // 3]},{n}"
            for n in range(SIZE)]  # fmt: skip
    (folder / "shirts.csv").write_text("\n".join(["width,height,colour,size,shop,week", *rows]) + "\n")
    (folder / "lines.txt").write_text("\n".join(TEXTS.__getitems__(np.arange(SIZE))["text"]) + "\n", "utf-8")
    (folder / "labels.txt").write_text("".join(f"{'ab'[n % 2]}\n" for n in range(SIZE)))
    for name in ("arrays", "documents/a", "documents/b", "pictures/a", "pictures/b"):
        (folder / name).mkdir(parents=True)
    for name, values in IMAGES.__getitems__(np.arange(SIZE)).items():
        np.save(folder / "arrays" / f"{name}.npy", values)
        for n, image in enumerate(values if name == "image" else ()):
            Image.fromarray(image).save(folder / "pictures" / "ab"[n % 2] / f"{n}.png")
            (folder / "documents" / "ab"[n % 2] / f"{n}.txt").write_text(f"text {n}")
    table = table_source.make(str(folder / "shirts.csv"), target="size", group="shop", time="week")
    parts = (("train", 0.5), ("valid", 0.5))
    splits.save(str(folder / "split.json"), {name: splits.part(table, name, parts) for name, _ in parts})
    (folder / "drop.json").write_text(json.dumps({"train": {"drop": [1, 4]}}))
    if importlib.util.find_spec("datasets"):
        from datasets import ClassLabel, Dataset, Features, Value

        features = Features({"text": Value("string"), "kind": ClassLabel(names=["a", "b", "c"])})
        text = TEXTS.__getitems__(np.arange(SIZE))["text"]
        Dataset.from_dict({"text": list(text), "kind": _label.tolist()}, features).save_to_disk(str(folder / "saved"))
