"""`w2w detect`, for `ray job submit ... -- python jobs/detect.py`."""

from w2w.engine.job import start
from w2w.garments.job_detect import Config, main

if __name__ == "__main__":
    start(main, Config)
