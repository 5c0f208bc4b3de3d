"""README's cluster and cluster.yaml, run as they are written: in a network of its own, which has loopback and nothing else.

There README's ports are free whatever else runs on the machine, `ray stop` stops no other cluster, and all that was started
ends with the test.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.shops import write_shop
from w2w import schema
from w2w.table import delta

ROOT = Path(__file__).parents[2]
ALONE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="session", autouse=True)
def ray_cluster():
    """These tests start clusters of their own."""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An empty home with a working tree in it, as git has it, and this environment; README's night.yaml on a small shop."""
    if not shutil.which("unshare") or subprocess.run([*ALONE, "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
        pytest.skip("this machine gives no network namespace (unshare, ip)")
    home = tmp_path_factory.mktemp("home")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (home / "w2w" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, home / "w2w" / name)
        os.utime(home / "w2w" / name, (0, 0))  # older than the environment: `make env` has nothing to install into it
    (home / "w2w" / ".venv").symlink_to(Path(sys.executable).parents[1])
    return home


def run(home: Path, lines: list[str], folder: Path, timeout_s: int = 600) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))} | {"HOME": str(home)}
    script = "\n".join(["set -e", "ip link set lo up", *lines])
    done = subprocess.run(
        [*ALONE, "bash", "-c", script], env=env, cwd=folder, capture_output=True, text=True, timeout=timeout_s
    )
    return done


def night(home: Path, name: str) -> tuple[str, str]:
    """README's night.yaml with a local store and feed: (the store, the options of the file)."""
    feed = write_shop(home / f"shop-{name}", 20)
    options = yaml.safe_load(re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1])
    store = str(home / f"store-{name}")
    options |= {"store": store, "feed": {"uri": str(feed), "full": True}, "index": {"target_recall": 0.9}}
    return store, yaml.safe_dump(options)


def test_readmes_head_takes_readmes_job(home):
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "README.md").read_text(), re.S | re.M)
    (block,) = [b for b in blocks if "ray start" in b]
    store, options = night(home, "readme")
    (home / "w2w" / "night.yaml").write_text(options)
    lines = block.splitlines()
    wrong = "python jobs/ingest.py --store=x --feed.uri=/nowhere.csv"
    submit = next(line for line in lines if line.startswith("ray job submit"))
    mistake = f"! {submit.partition(' -- ')[0]} -- {wrong} > mistake.log 2>&1"
    lines.insert(lines.index(submit) + 1, mistake)
    done = run(home, lines, home / "w2w")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert delta.read(store, schema.PRODUCTS, [schema.PRODUCT_ID]).num_rows == 20
    assert delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID]).num_rows == 20
    assert "no such file" in (home / "w2w" / "mistake.log").read_text()


def test_cluster_yamls_commands_start_a_head_that_takes_a_job(home):
    """Everything but `ray up` itself, which rents machines: set-up, head, a worker that joins it, the job of its comment."""
    text = (ROOT / "cluster.yaml").read_text()
    cluster = yaml.safe_load(text)
    assert cluster["file_mounts"] == {"~/w2w": ".", "~/.ray/auth_token": "~/.ray/auth_token"}
    (home / "ray_bootstrap_config.yaml").write_text(
        "cluster_name: test\nprovider: {type: local, head_ip: 127.0.0.1, worker_ips: []}\n"
    )
    store, options = night(home, "cluster")
    (home / "w2w" / "night.yaml").write_text(options)
    said = re.findall(r"^#   (.*?)(?:  +#.*)?$", text, re.M)
    mode, token, submit = (next(c for c in said if c.startswith(w)) for w in ("export", "ray get-auth-token", "ray job submit"))
    done = run(
        home,
        [
            *cluster["setup_commands"],
            f"PATH=~/w2w/.venv/bin:$PATH; {mode}; {token}",
            *[f"bash -c {shlex.quote(c)}" for c in cluster["head_start_ray_commands"]],
            "export RAY_HEAD_IP=127.0.0.1",
            f"bash -c {shlex.quote(cluster['worker_start_ray_commands'][1] + ' --num-cpus=2')}",
            f"cd ~/w2w; {submit}",
        ],
        home,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID]).num_rows == 20
