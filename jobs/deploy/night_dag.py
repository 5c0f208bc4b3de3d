"""The night from Airflow 3: submitted to a Ray cluster that is there, in a task that ends as the night ends.

Airflow needs ``ray[default]`` of the cluster's version in its environment, and the cluster's token. ``nightly.py`` exits with 1
when the night failed and with 2 when its config is wrong; the submission passes that on.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    "w2w_night",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # one night does the work of those that were left out
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=15)},  # a night resumes where it stopped
):
    BashOperator(
        task_id="night",
        bash_command=(
            "ray job submit --address {{ var.value.w2w_ray_address }} --"
            " python /opt/w2w/jobs/nightly.py --config {{ var.value.w2w_night }}"
        ),
        env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "{{ var.value.w2w_ray_token }}"},
        append_env=True,
        execution_timeout=timedelta(hours=6),
    )
