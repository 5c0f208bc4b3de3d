"""`w2w split`, for `ray job submit ... -- python jobs/split.py`."""

from w2w.engine.job import start
from w2w.mining.splits.job import Config, main

if __name__ == "__main__":
    start(main, Config)
