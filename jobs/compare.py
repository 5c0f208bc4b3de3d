"""`w2w compare`, for `ray job submit ... -- python jobs/compare.py`."""

from w2w.engine.job import start
from w2w.evaluation.job_compare import Config, main

if __name__ == "__main__":
    start(main, Config)
