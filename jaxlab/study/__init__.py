"""Studies: many runs of one question, what follows from them, and the written answer."""
