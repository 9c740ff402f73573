"""Floor 1: contracts, config, trees, randomness, the run directory's schema and errors."""
