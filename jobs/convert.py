"""`w2w convert`, for `ray job submit ... -- python jobs/convert.py`."""

from w2w.engine.job import start
from w2w.mining.sets.job import Config, main

if __name__ == "__main__":
    start(main, Config)
