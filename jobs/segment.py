"""`w2w segment`, for `ray job submit ... -- python jobs/segment.py`."""

from w2w.engine.job import start
from w2w.garments.job_segment import Config, main

if __name__ == "__main__":
    start(main, Config)
