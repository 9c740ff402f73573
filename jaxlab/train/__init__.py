"""The engine: step, parallel, loop, evaluate, checkpoint. Knows contracts, never a concrete model, data set, metric."""
