"""`w2w evaluate`, for `ray job submit ... -- python jobs/evaluate.py`."""

from w2w.engine.job import start
from w2w.evaluation.job_evaluate import Config, main

if __name__ == "__main__":
    start(main, Config)
