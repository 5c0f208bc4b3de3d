"""SIGTERM, by which schedulers stop a job, ends it as Ctrl-C does: a sentence, the page of the night, and everybody is told."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.nights.nights import Shop

START = """
import sys, time
from w2w.engine import cluster, job
from w2w.nightly import job as nightly

def waits(config):
    cluster.connect(config.ray)
    print("waits", flush=True)
    time.sleep(120)

nightly.index.main = waits
job.start(nightly.main, nightly.Config, sys.argv[1:], "w2w nightly")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_night_that_is_stopped_says_what_it_has_done(tmp_path, number):
    shop, store, metrics = Shop(tmp_path), tmp_path / "store", tmp_path / "w2w.prom"
    shop.stock(3)
    options = [
        f"--store={store}",
        f"--feed.uri={shop.write()}",
        f"--tell.metrics={metrics}",
        "--pool.workers=1",
        "--ray.num_cpus=1",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", START, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as night:
        try:
            for said in night.stdout:
                if said.strip() == "waits":
                    break
            night.send_signal(number)
            _, errors = night.communicate(timeout=120)
        finally:
            night.kill()
    assert "stopped. What was committed stays; run it again to go on." in errors, errors
    assert "w2w_night_exit_code 130.0" in metrics.read_text()
    [told] = (store / "reports" / "nightly").glob("nightly-*/night.json")
    night_json = json.loads(told.read_text())
    assert (night_json["exit"], night_json["embed"]["counts"]["out"], night_json["told"]["new"]) == (130, 3, 3)
    assert "the night stopped at index" in (told.parent / "index.html").read_text()
