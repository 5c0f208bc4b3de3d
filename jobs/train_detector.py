"""`w2w train-detector`, for `ray job submit ... -- python jobs/train_detector.py`."""

from w2w.engine.job import start
from w2w.training.detectors.job import Config, main

if __name__ == "__main__":
    start(main, Config)
