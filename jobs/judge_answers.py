"""`w2w judge-answers`, for `ray job submit ... -- python jobs/judge_answers.py`."""

from w2w.engine.job import start
from w2w.search.job_judge_answers import Config, main

if __name__ == "__main__":
    start(main, Config)
