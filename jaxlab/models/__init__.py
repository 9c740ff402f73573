"""Pure Linen modules, one file a family, each ending in ``make(data, ...)``, the factory that a config names.

A model is called with batch fields and ``train``, and returns a mapping of per-example results such as ``logits``.
"""
