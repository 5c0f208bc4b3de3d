"""A training of one worker: checkpoints that are whole, and where a worker that takes over goes on."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from w2w.engine.alone import _work, local
from w2w.engine.training import CHECKPOINTS_KEPT
from w2w.stage import HISTORY, MODEL
from w2w.storage import filesystem

STEPS = 5


@dataclass
class Counting:
    """Trains by writing down its step; dies before ``dies_at``."""

    dies_at: int | None
    begun: list[int]

    def fit(self, report, resume: Path | None, device) -> None:
        history = json.loads((resume / HISTORY).read_text()) if resume else []
        self.begun.append(len(history))
        for step in range(len(history) + 1, STEPS + 1):
            if step == self.dies_at:
                raise SystemExit
            history = [*history, {"step": step}]
            report({"step": step}, partial(self.write, history=history))

    def write(self, folder: Path, history: list) -> None:
        (folder / HISTORY).write_text(json.dumps(history))
        (folder / MODEL / "deep").mkdir(parents=True)
        (folder / MODEL / "deep" / "weights").write_text(str(len(history)))


def checkpoints(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir())


def test_the_next_worker_goes_on_from_the_last_whole_checkpoint(tmp_path):
    place, begun = tmp_path / "place", []
    with pytest.raises(SystemExit):
        _work(lambda rank, num: Counting(4, begun), str(place), False)
    assert checkpoints(place) == ["checkpoint_000001", "checkpoint_000002"]
    half = place / "checkpoint_000003"  # of a worker that was killed while it wrote
    half.mkdir()
    (half / "rest").write_text("of another")
    last = _work(lambda rank, num: Counting(None, begun), str(place), False)
    assert begun == [0, 3]
    assert len(checkpoints(place)) == CHECKPOINTS_KEPT
    with local(filesystem(str(place))[0], last) as folder:
        assert json.loads((folder / HISTORY).read_text()) == [{"step": n + 1} for n in range(STEPS)]
        assert (folder / MODEL / "deep" / "weights").read_text() == str(STEPS)
    assert not (place / "checkpoint_000003").exists() or not (place / "checkpoint_000003" / "rest").exists()


def test_a_run_that_is_done_is_not_begun_again(tmp_path):
    begun: list[int] = []
    for _ in range(2):
        _work(lambda rank, num: Counting(None, begun), str(tmp_path / "place"), False)
    assert begun == [0, STEPS]
