"""The ladder of baselines: what is simple, fitted on what the model is trained on, for each kind of results."""
