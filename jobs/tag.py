"""`w2w tag`, for `ray job submit ... -- python jobs/tag.py`."""

from w2w.engine.job import start
from w2w.training.tags.job import Config, main

if __name__ == "__main__":
    start(main, Config)
