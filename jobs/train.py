"""`w2w train`, for `ray job submit ... -- python jobs/train.py`."""

from w2w.engine.job import start
from w2w.training.job import Config, main

if __name__ == "__main__":
    start(main, Config)
