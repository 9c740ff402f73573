"""Objectives: ``(apply, batch) -> Loss``, sums over examples that the train step divides once."""
