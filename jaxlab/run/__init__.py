"""Assembles a run by name from a config: one file a command."""
