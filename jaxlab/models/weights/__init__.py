"""Weights of other libraries, in their naming, to and from our models: a table of rules a family."""
