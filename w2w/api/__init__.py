"""The public Python API, loaded lazily by ``import w2w``: jobs, stores, models."""
