"""`w2w mine`, for `ray job submit ... -- python jobs/mine.py`."""

from w2w.engine.job import start
from w2w.mining.pairs.job import Config, main

if __name__ == "__main__":
    start(main, Config)
