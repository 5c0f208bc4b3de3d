"""`w2w demo`, for `ray job submit ... -- python jobs/demo.py`."""

from w2w.cli.demo import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
