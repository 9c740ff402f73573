"""Sinks: where rows of metrics go besides ``metrics.jsonl``."""
