"""`w2w judge`, for `ray job submit ... -- python jobs/judge.py`."""

from w2w.engine.job import start
from w2w.training.detectors.job_judge import Config, main

if __name__ == "__main__":
    start(main, Config)
