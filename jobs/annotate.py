"""`w2w annotate`, for `ray job submit ... -- python jobs/annotate.py`."""

from w2w.engine.job import start
from w2w.garments.job_annotate import Config, main

if __name__ == "__main__":
    start(main, Config)
