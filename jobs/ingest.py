"""`w2w ingest`, for `ray job submit ... -- python jobs/ingest.py`."""

from w2w.engine.job import start
from w2w.ingest.job import Config, main

if __name__ == "__main__":
    start(main, Config)
