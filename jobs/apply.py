"""`w2w apply`, for `ray job submit ... -- python jobs/apply.py`."""

from w2w.cli.apply import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
