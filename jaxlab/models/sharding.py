"""How the parameters of every family that ships are split over a mesh: the default of ``config.parallel.rules``.

Ordered rules; the first whose expression matches a parameter's whole name decides. Its axes belong to the last
dimensions, so that a rule holds for a layer alone and for scanned layers, which have one dimension more in front.
Matrices that widen are split by columns and the ones that narrow again by rows, so that between the two nothing travels
(Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3). Recurrent weights are read once a time step: they are
split over ``fsdp`` alone. Vectors, a thousandth of the whole, are on every device.
"""

from __future__ import annotations

from jaxlab.core.types import Rules

RULES: Rules = (
    (r"(.*/)?\w*attention\w*/(query|key|value)/kernel", ("fsdp", "tensor")),
    (r"(.*/)?\w*attention\w*/output/kernel", ("tensor", "fsdp")),
    (r"(.*/)?feed_forward\w*/(up|gate)/kernel", ("fsdp", "tensor")),
    (r"(.*/)?feed_forward\w*/down/kernel", ("tensor", "fsdp")),
    (r"(.*/)?token/embedding", ("tensor", "fsdp")),  # by words, as the logits that it gives are
    (r"(.*/)?head/kernel", ("fsdp", "tensor")),
    (r"(.*/)?embedding", ("fsdp", "")),  # tables of users, items and categories: by rows
    (r"(.*/)?(kernel|recurrent_kernel)", ("fsdp", "")),
    (r".*", ()),
)
