"""What stands in jobs/deploy names files, options and versions that there are."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from w2w import config as configuration
from w2w.nightly import job as nightly

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "jobs" / "deploy"
CONFIGS, CRON = list(yaml.safe_load_all((DEPLOY / "night.yaml").read_text()))
CLUSTER = CRON["spec"]["jobTemplate"]["rayClusterSpec"]
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]


def inside(path: str) -> Path:
    """What a path of the image is in the repository."""
    assert path.startswith("/opt/w2w/"), path
    return ROOT / path.removeprefix("/opt/w2w/")


def test_the_night_of_kubernetes_reads_a_config_that_nightly_takes(tmp_path):
    python, job, option, file = shlex.split(CRON["spec"]["jobTemplate"]["entrypoint"])
    assert (python, option) == ("python", "--config")
    assert inside(job).is_file()
    [mount] = CLUSTER["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    [volume] = CLUSTER["headGroupSpec"]["template"]["spec"]["volumes"]
    assert (volume["name"], volume["configMap"]["name"]) == (mount["name"], CONFIGS["metadata"]["name"])
    assert Path(file).parent == Path(mount["mountPath"])
    night = yaml.safe_load(CONFIGS["data"][Path(file).name])
    assert configuration.build(nightly.Config, night, "night.yaml").feed.full


def test_every_node_has_the_image_and_the_version_that_the_tests_ran_with():
    images = {c["image"] for g in GROUPS for c in g["template"]["spec"]["containers"]}
    assert images == {"registry.example/w2w:1"}
    assert CLUSTER["rayVersion"] == PINNED["ray"]
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_the_image_copies_what_there_is():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    assert {"w2w", "jobs", "Makefile", "constraints.txt", "pyproject.toml"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("file", ["night.yaml", "night_dag.py", "crontab"])
def test_every_schedule_is_one_and_the_same(file):
    text = (DEPLOY / file).read_text()
    assert len(re.findall(r"(?<![\w*])30 2 \* \* \*", text)) == 1


def test_what_cron_and_airflow_run_is_there():
    [line] = [line for line in (DEPLOY / "crontab").read_text().splitlines() if line.startswith("30 ")]
    words = shlex.split(line)
    given = words[words.index("nightly") + 2 :]
    assert words[words.index("&&") + 1] == ".venv/bin/w2w"
    assert given[0] == "--json"
    source = (DEPLOY / "night_dag.py").read_text()
    compile(source, "night_dag.py", "exec")
    [job] = re.findall(r"python (\S+nightly.py)", source)
    assert inside(job).is_file()
