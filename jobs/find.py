"""`w2w find`, for `ray job submit ... -- python jobs/find.py`."""

from w2w.engine.job import start
from w2w.find.job import Config, main

if __name__ == "__main__":
    start(main, Config)
