"""`w2w doctor`, for `ray job submit ... -- python jobs/doctor.py`."""

from w2w.cli.doctor import Config, main
from w2w.engine.job import start

if __name__ == "__main__":
    start(main, Config)
