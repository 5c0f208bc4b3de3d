"""`w2w style`, for `ray job submit ... -- python jobs/style.py`."""

from w2w.engine.job import start
from w2w.style.job import Config, main

if __name__ == "__main__":
    start(main, Config)
