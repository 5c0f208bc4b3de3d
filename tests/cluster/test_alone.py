"""kill -9 of a lone worker in the middle of a training: another goes on from its checkpoint, to the same end."""

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from w2w.engine import alone
from w2w.engine.training import Workers
from w2w.stage import HISTORY, MODEL

STEPS, STEP_S = 8, 0.3


@dataclass
class Counting:
    """Writes down who trains and from which step on."""

    seen: Path

    def fit(self, report, resume: Path | None, device) -> None:
        done = len(json.loads((resume / HISTORY).read_text())) if resume else 0
        with self.seen.open("a") as f:
            f.write(f"{os.getpid()} {done}\n")
        for step in range(done + 1, STEPS + 1):
            time.sleep(STEP_S)
            report({"step": step}, partial(self.write, step))

    def write(self, step: int, folder: Path) -> None:
        (folder / HISTORY).write_text(json.dumps(list(range(1, step + 1))))
        (folder / MODEL).mkdir()
        (folder / MODEL / "weights").write_text(str(step))


def make(seen: str, rank: int, num_workers: int) -> Counting:
    return Counting(Path(seen))


def kill_once(seen: Path, place: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(place.glob(f"checkpoint_*/{HISTORY}")):
            os.kill(int(seen.read_text().split()[0]), signal.SIGKILL)
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_goes_on(tmp_path):
    seen, place = tmp_path / "seen", tmp_path / "place"
    threading.Thread(target=kill_once, args=(seen, place), daemon=True).start()
    last = Path(alone.train(partial(make, str(seen)), Workers(), str(place)))
    (first, begun), (second, resumed) = (line.split() for line in seen.read_text().splitlines())
    assert first != second
    assert int(begun) == 0
    assert 0 < int(resumed) < STEPS
    assert json.loads((last / HISTORY).read_text()) == list(range(1, STEPS + 1))
    assert (last / MODEL / "weights").read_text() == str(STEPS)
