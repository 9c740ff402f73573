"""Metrics: additive statistics inside jit, and tables and pictures from the prediction store."""
