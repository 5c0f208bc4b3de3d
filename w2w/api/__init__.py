"""The public Python API, which ``import w2w`` finds when it is asked for: jobs, stores, models."""
