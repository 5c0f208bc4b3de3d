"""`ray job submit`, as README writes it: the head node's dashboard takes the working tree and runs a job of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.shops import write_shop
from w2w import schema
from w2w.table import delta

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RAY = str(BIN / "ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="session", autouse=True)
def ray_cluster():
    """This test starts a cluster of its own."""


@pytest.fixture(scope="module")
def submit(tmp_path_factory):
    head_log = tmp_path_factory.mktemp("head") / "log"
    gcs, dashboard, client, agent = free_ports(4)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_AUTH_MODE": "disabled"}
    env["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # the cluster's python is the one that has w2w's packages
    head = [RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    with head_log.open("w") as log:
        process = subprocess.Popen(
            [*head, f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"],
            env=env,
            stdout=log,
            stderr=log,
        )

    def run(*command: str) -> subprocess.CompletedProcess:
        options = [f"--address=http://127.0.0.1:{dashboard}", f"--working-dir={ROOT}", "--", *command]
        return subprocess.run([RAY, "job", "submit", *options], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)

    try:
        # the agent that starts jobs is up some time after the dashboard
        assert any(run("true").returncode == 0 for _ in range(30)), head_log.read_text()
        yield run
    finally:
        process.terminate()
        process.wait(60)


def test_a_submitted_job_does_its_work(submit, tmp_path):
    feed = write_shop(tmp_path / "shop", 20)
    store = str(tmp_path / "store")
    done = submit("python", "jobs/ingest.py", f"--store={store}", f"--feed.uri={feed}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows in" in done.stdout.lower()
    assert delta.read(store, schema.PRODUCTS, [schema.PRODUCT_ID]).num_rows == 20


def test_a_mistake_fails_the_job_with_its_sentence(submit, tmp_path):
    done = submit("python", "jobs/ingest.py", f"--store={tmp_path / 'store'}", "--feed.uri=/nowhere.csv")
    assert done.returncode != 0
    assert "no such file" in done.stdout + done.stderr
