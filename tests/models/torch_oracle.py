"""What the tests against PyTorch share: the same numbers as arrays and as tensors, and the comparison of gradients.

The references are written with `torch.nn.functional` on tensors in this library's layout, so that each parameter's
gradient is found under its own name. Import it in a test, after ``pytest.importorskip("torch")``.
Usage: ``compare(apply, reference, variables, image)``.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from jaxlab.core.tree import named_leaves

LOGITS, GRADIENT = 1e-4, 1e-3


def random_like(shapes: Any, seed: int = 0) -> Any:
    """Return random numbers for an abstract tree's leaves, of a size that keeps the signal's."""
    generator = np.random.default_rng(seed)

    def draw(name: str, leaf: Any) -> np.ndarray:
        if name.endswith("kernel"):
            return (generator.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
        if name.endswith(("scale", "var")):
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return generator.normal(0, 0.3, leaf.shape).astype(np.float32)

    drawn = [draw(name, leaf) for name, leaf in named_leaves(shapes).items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), drawn)


def initial(model: Any, *inputs: Any) -> Any:
    """Return random variables for the model."""
    return random_like(jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x, train=False), *inputs))


def compare(
    apply: Callable[..., Any], reference: Callable[..., Any], variables: dict[str, Any], image: np.ndarray
) -> None:
    """Compare ``apply(variables, image)`` with ``reference(variables, image)``, values and gradients.

    Both return an array; its sum with fixed weights is differentiated by each parameter and by the image.
    """

    @jax.jit
    def ours(params: Any, image: Any) -> Any:
        values, pull = jax.vjp(lambda params, image: apply({**variables, "params": params}, image), params, image)
        return values, pull(np.cos(np.arange(values.size, dtype=values.dtype)).reshape(values.shape))

    values, gradients = ours(variables["params"], image)
    torch.backends.mkldnn.enabled = False  # with it torch 2.14 gives a wrong gradient of 1×1 kernels with a stride
    tensors = jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), {**variables, "image": image})
    expected = reference(tensors, tensors["image"])
    np.testing.assert_allclose(values, expected.detach().numpy(), atol=LOGITS)
    expected.backward(torch.cos(torch.arange(expected.numel(), dtype=expected.dtype)).reshape(expected.shape))
    theirs = named_leaves((tensors["params"], tensors["image"]))
    for name, found in named_leaves(gradients).items():
        if name.endswith("key/bias"):  # adds the same to all scores of a query: its gradient is rounding alone
            continue
        wanted = theirs[name].grad.numpy()
        assert np.linalg.norm(wanted) > 0, name
        assert np.linalg.norm(found - wanted) < GRADIENT * np.linalg.norm(wanted), name


def convolve(x_BCHW: Any, layer: dict[str, Any], stride: int, padding: int, groups: int = 1) -> Any:
    """Convolve with a kernel [H, W, C, F] and the bias that there may be."""
    weight_FCHW = layer["kernel"].permute(3, 2, 0, 1)
    return torch.nn.functional.conv2d(x_BCHW, weight_FCHW, layer.get("bias"), stride, padding, groups=groups)


def dense(x: Any, layer: dict[str, Any]) -> Any:
    """Multiply by a kernel [D, F]."""
    return torch.nn.functional.linear(x, layer["kernel"].T, layer["bias"])


def layer_norm(x: Any, layer: dict[str, Any]) -> Any:
    """Normalise the last axis."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], layer["scale"], layer["bias"], 1e-6)
