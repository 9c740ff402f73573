"""The engine: step, parallel, loop, evaluate, checkpoint. Knows contracts, never a concrete model, dataset or metric."""
