"""`w2w audit`, for `ray job submit ... -- python jobs/audit.py`."""

from w2w.engine.job import start
from w2w.mining.audit.job import Config, main

if __name__ == "__main__":
    start(main, Config)
