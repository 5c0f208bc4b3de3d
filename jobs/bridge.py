"""`w2w bridge`, for `ray job submit ... -- python jobs/bridge.py`."""

from w2w.bridge.job import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
