"""Writes tests/models/golden.json: logits and gradients of tiny models by Hugging Face's transformers.

Their weights are a formula, so that the tests make the same ones without it. Usage, with the extra ``oracle``:
python scripts/golden_values.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/models"))
import golden_cases as golden

TEXT = {"vocab_size": golden.VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BERT = transformers.BertConfig(max_position_embeddings=golden.LENGTH, num_labels=3, **TEXT, **SIZES)


def resnet(kind: str, sizes: list[int]) -> transformers.PreTrainedModel:
    """Return a ResNet of three classes."""
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=sizes, depths=[2, 1], layer_type=kind, num_labels=3
    )
    return transformers.ResNetForImageClassification(config)


def references() -> dict[str, transformers.PreTrainedModel]:
    """Return the model of each case."""
    gpt2 = transformers.GPT2Config(n_positions=golden.LENGTH, n_embd=8, n_layer=2, n_head=2, **TEXT)
    vit = transformers.ViTConfig(image_size=golden.SIDE, patch_size=8, num_labels=3, layer_norm_eps=1e-6, **SIZES)
    return {
        "gpt2": transformers.GPT2LMHeadModel(gpt2),
        "bert": transformers.BertForMaskedLM(BERT),
        "bert_classifier": transformers.BertForSequenceClassification(BERT),
        "vit": transformers.ViTForImageClassification(vit),
        "resnet_basic": resnet("basic", [4, 6]),
        "resnet_bottleneck": resnet("bottleneck", [16, 24]),
    }


def inputs_of(name: str) -> dict[str, torch.Tensor]:
    """Return the reference's inputs by name."""
    fields = [torch.tensor(field) for field in golden.CASES[name].inputs]
    if len(golden.CASES[name].inputs[0].shape) == 4:
        return {"pixel_values": fields[0].permute(0, 3, 1, 2)}
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), (x.long() for x in fields), strict=False))


def saved(model: transformers.PreTrainedModel, folder: str) -> dict[str, np.ndarray]:
    """Return the tensors as transformers writes them."""
    model.save_pretrained(folder)
    return load_file(Path(folder) / "model.safetensors")


def values_of(name: str, model: transformers.PreTrainedModel) -> dict[str, Any]:
    """Return the logits, and of each parameter's gradient a summary."""
    case = golden.CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        tensors = {n: x if x.ndim == 0 else golden.formula(n, x.shape) for n, x in saved(model, folder).items()}
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model = type(model).from_pretrained(folder).eval()
        logits = model(**inputs_of(name)).logits
        weights = golden.weighted(logits.detach().numpy(), case.mask)
        torch.sum(logits * torch.tensor(weights)).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.grad)
        gradients = saved(model, folder)
    return {
        "logits": [[float(f"{x:.7g}") for x in row] for row in logits.detach().numpy().reshape(2, -1)],
        "gradients": {
            n: golden.summary(x) for n, x in gradients.items() if x.ndim and "running" not in n
        },
    }  # fmt: skip


def all_values() -> dict[str, Any]:
    """Return what the file holds."""
    made_by = {"transformers": transformers.__version__, "torch": torch.__version__}
    return {"made_by": made_by, **{name: values_of(name, model) for name, model in references().items()}}


if __name__ == "__main__":
    golden.FILE.write_text(json.dumps(all_values(), separators=(",", ":")).replace('},"', '},\n"') + "\n")
    print(f"{golden.FILE}: {golden.FILE.stat().st_size:,} bytes")
