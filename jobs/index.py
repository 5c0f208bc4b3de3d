"""`w2w index`, for `ray job submit ... -- python jobs/index.py`."""

from w2w.engine.job import start
from w2w.index.job import Config, main

if __name__ == "__main__":
    start(main, Config)
