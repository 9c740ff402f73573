"""Short factories over optax: schedules that know the run's length, per-parameter rules, chains."""
