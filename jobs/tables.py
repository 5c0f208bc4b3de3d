"""`w2w tables`, for `ray job submit ... -- python jobs/tables.py`."""

from w2w.cli.tables import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
