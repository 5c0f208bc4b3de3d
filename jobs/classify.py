"""`w2w classify`, for `ray job submit ... -- python jobs/classify.py`."""

from w2w.engine.job import start
from w2w.training.classifier.job import Config, main

if __name__ == "__main__":
    start(main, Config)
