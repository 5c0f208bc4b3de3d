"""`w2w represent`, for `ray job submit ... -- python jobs/represent.py`."""

from w2w.engine.job import start
from w2w.mining.representatives.job import Config, main

if __name__ == "__main__":
    start(main, Config)
