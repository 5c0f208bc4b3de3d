"""`w2w plan`, for `ray job submit ... -- python jobs/plan.py`."""

from w2w.engine.job import start
from w2w.plan.job import Config, main

if __name__ == "__main__":
    start(main, Config)
