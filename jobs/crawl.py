"""`w2w crawl`, for `ray job submit ... -- python jobs/crawl.py`."""

from w2w.crawl.job import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
