"""`w2w show`, for `ray job submit ... -- python jobs/show.py`."""

from w2w.engine.job import start
from w2w.garments.job_show import Config, main

if __name__ == "__main__":
    start(main, Config)
