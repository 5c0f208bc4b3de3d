"""`w2w search`, for `ray job submit ... -- python jobs/search.py`."""

from w2w.engine.job import start
from w2w.search.job_search import Config, main

if __name__ == "__main__":
    start(main, Config)
