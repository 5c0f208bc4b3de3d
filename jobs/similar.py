"""`w2w similar`, for `ray job submit ... -- python jobs/similar.py`."""

from w2w.engine.job import start
from w2w.similar.job import Config, main

if __name__ == "__main__":
    start(main, Config)
