"""`w2w recommend`, for `ray job submit ... -- python jobs/recommend.py`."""

from w2w.engine.job import start
from w2w.recommend.job import Config, main

if __name__ == "__main__":
    start(main, Config)
