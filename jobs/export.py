"""`w2w export`, for `ray job submit ... -- python jobs/export.py`."""

from w2w.engine.job import start
from w2w.export.job import Config, main

if __name__ == "__main__":
    start(main, Config)
