"""The audit of a data set: one pass over each split, then what its rows say about faults and leaks."""
