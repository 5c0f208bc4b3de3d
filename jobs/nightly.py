"""`w2w nightly`, for `ray job submit ... -- python jobs/nightly.py`."""

from w2w.engine.job import start
from w2w.nightly.job import Config, main

if __name__ == "__main__":
    start(main, Config)
