"""`w2w embed`, for `ray job submit ... -- python jobs/embed.py`."""

from w2w.engine.job import start
from w2w.models.job import Config, main

if __name__ == "__main__":
    start(main, Config)
