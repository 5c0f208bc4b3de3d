"""`w2w nightly`, for `ray job submit ... -- python jobs/nightly.py`."""

from w2w.cli.nightly import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
