"""`w2w deduplicate`, for `ray job submit ... -- python jobs/deduplicate.py`."""

from w2w.engine.job import start
from w2w.mining.duplicates.job import Config, main

if __name__ == "__main__":
    start(main, Config)
