"""`w2w erase`, for `ray job submit ... -- python jobs/erase.py`."""

from w2w.engine.job import start
from w2w.erase.job import Config, main

if __name__ == "__main__":
    start(main, Config)
