"""`w2w harden`, for `ray job submit ... -- python jobs/harden.py`."""

from w2w.engine.job import start
from w2w.mining.negatives.job import Config, main

if __name__ == "__main__":
    start(main, Config)
