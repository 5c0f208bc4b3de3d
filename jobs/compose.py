"""`w2w compose`, for `ray job submit ... -- python jobs/compose.py`."""

from w2w.engine.job import start
from w2w.mining.outfits.job import Config, main

if __name__ == "__main__":
    start(main, Config)
