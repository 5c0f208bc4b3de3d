"""`w2w check`, for `ray job submit ... -- python jobs/check.py`."""

from w2w.check.job import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
