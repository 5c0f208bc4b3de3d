"""`w2w gallery`, for `ray job submit ... -- python jobs/gallery.py`."""

from w2w.engine.job import start
from w2w.gallery.job import Config, main

if __name__ == "__main__":
    start(main, Config)
