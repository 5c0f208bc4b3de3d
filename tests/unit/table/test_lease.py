"""One night at a time works on a store; what lost its lease commits nothing."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from tests.unit.table.test_sink import lineage
from w2w import schema, storage
from w2w.errors import JobFailed, StorageFailed
from w2w.table import delta, lease
from w2w.table.parts import Output
from w2w.table.sink import append_rows

SECONDS = 0.4


def file_of(store: Path) -> Path:
    return store / "leases" / "night.json"


def holder(store: Path) -> dict:
    return json.loads(file_of(store).read_text())


def hold(store: Path, run_id: str, said: list | None = None, seconds: float = SECONDS):
    return lease.hold(str(store), run_id, (said if said is not None else []).append, seconds)


def written(store: Path, **changes) -> None:
    there = {
        "token": 4,
        "run_id": "other",
        "host": "far",
        "machine": "far",
        "pid": 7,
        "since": "then",
        "beat": 0,
        "ended": False,
    }
    file_of(store).parent.mkdir(exist_ok=True)
    file_of(store).write_text(json.dumps(there | changes))


def test_the_next_night_may_begin_when_one_has_ended(tmp_path):
    with hold(tmp_path, "first"):
        assert (holder(tmp_path)["run_id"], holder(tmp_path)["ended"]) == ("first", False)
    assert holder(tmp_path)["ended"]
    with pytest.raises(ZeroDivisionError), hold(tmp_path, "second"):
        raise ZeroDivisionError
    said: list[str] = []
    with hold(tmp_path, "third", said):
        assert (holder(tmp_path)["run_id"], holder(tmp_path)["token"]) == ("third", 3)
    assert not said


def test_a_night_that_lives_is_left_alone(tmp_path):
    said: list[str] = []
    alive = f"another night is at work on this store: first \\(process {os.getpid()}"
    with hold(tmp_path, "first", seconds=4):
        with pytest.raises(JobFailed, match=alive), hold(tmp_path, "second", said, seconds=4):
            raise AssertionError("two nights at once")
        lease.check(str(tmp_path))
    assert "waiting at most 4 s for a sign of life" in said[0]


def test_one_that_gives_no_sign_of_life_loses_it(tmp_path):
    written(tmp_path)
    with hold(tmp_path, "second"):
        assert (holder(tmp_path)["run_id"], holder(tmp_path)["token"]) == ("second", 5)


def test_one_whose_process_is_gone_from_this_machine_loses_it_at_once(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    with hold(tmp_path, "first"):
        machine = holder(tmp_path)["machine"]
    written(tmp_path, machine=machine, pid=int(gone.stdout))
    said: list[str] = []
    with hold(tmp_path, "second", said):
        assert holder(tmp_path)["token"] == 5
    assert not said


@pytest.mark.parametrize("content", ["", "x", "[]", "{}", '{"token": "1"}', "[" * 100_000])
def test_what_is_no_lease_is_replaced_once_nobody_changes_it(tmp_path, content):
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_text(content)
    with hold(tmp_path, "second"):
        assert holder(tmp_path)["run_id"] == "second"


def test_of_two_that_begin_at_once_one_wins(tmp_path):
    results: list[str] = []
    start, all_refused = threading.Barrier(4), threading.Semaphore(0)

    def night(number: int) -> None:
        start.wait()
        try:
            with hold(tmp_path, f"run {number}", seconds=4):
                results.append("held")
                for _ in range(3):
                    all_refused.acquire(timeout=60)
        except JobFailed:
            results.append("refused")
            all_refused.release()

    threads = [threading.Thread(target=night, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held", "refused", "refused", "refused"]


def test_a_beat_whose_answer_was_lost_is_no_loss(tmp_path, monkeypatch):
    real, lost = storage.replace_if, threading.Event()

    def loses_one_answer(uri, data, expected):
        real(uri, data, expected)
        if b'"beat": 1,' in data and not lost.is_set():
            lost.set()
            raise StorageFailed("the answer was lost")

    monkeypatch.setattr(storage, "replace_if", loses_one_answer)
    with hold(tmp_path, "first"):
        assert lost.wait(30)
        for _ in range(300):
            if holder(tmp_path)["beat"] > 2:
                break
            threading.Event().wait(0.1)
        assert holder(tmp_path)["beat"] > 2
        lease.check(str(tmp_path))
    assert holder(tmp_path)["ended"]


def test_what_lost_the_night_commits_nothing(tmp_path):
    store = str(tmp_path)
    row = {schema.SOURCE: "feed", schema.CHECKED_AT: 5, schema.RUN_ID: "r"}
    rows = pa.Table.from_pylist([row], schema=schema.RECHECKS.schema)
    with hold(tmp_path, "first"):
        append_rows(store, Output(schema.RECHECKS), rows, lineage("1"))
        written(tmp_path, token=9, run_id="second")
        with pytest.raises(JobFailed, match=r"gave no sign of life.*second .process 7 on far.* holds the night now"):
            append_rows(store, Output(schema.RECHECKS), rows, lineage("2"))
        with pytest.raises(JobFailed):
            lease.check(str(tmp_path / "index" / "default"))
        lease.check(str(tmp_path) + "-other")
    assert delta.read(store, schema.RECHECKS, [schema.SOURCE]).num_rows == 1
    assert holder(tmp_path) == holder(tmp_path) | {"token": 9, "ended": False}
    lease.check(store)  # nobody holds it here
