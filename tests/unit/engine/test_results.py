"""A job's result: as a table for people, as JSON for schedulers."""

import json
import os
import sys
from dataclasses import dataclass, field

import pytest

from w2w.engine.job import JobConfig, Run, start
from w2w.errors import JobFailed, UsageError
from w2w.results import Figure, Summary, to_json, words
from w2w.shown import Terminal
from w2w.stage import Counts


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    pending: int
    memory_mb: float = 0.0
    warning: str | None = None
    unchanged: bool = False
    by_split: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    before: dict[str, Figure] = field(default_factory=dict)
    plans: dict[str, str] = field(default_factory=dict, repr=False)


FIGURE = Figure(0.5, 0.25, 0.75, 1200)
FULL = Result(
    job="x", run_id="x-1", pending=1234, memory_mb=12.3456, unchanged=True, by_split={"train": 1000, "val": 2},
    figures={"MRR": FIGURE}, before={"MRR": Figure(0.1)}, plans={"a": "b"},
)  # fmt: skip


def test_fields_are_shown_under_their_names_unless_there_is_nothing_to_say():
    assert words(FULL) == {
        "pending": "1,234",
        "memory mb": "12.35",
        "unchanged": "yes",
        "by split": "1,000 train, 2 val",
        "MRR": "0.500 [0.250, 0.750] of 1,200",
        "MRR, before": "0.100",
    }
    assert words(Result(job="x", run_id="x-1", pending=0)) == {"pending": "0", "memory mb": "0"}


def test_sentences_are_told_apart_by_more_than_a_comma():
    """They have commas of their own; names have none."""
    said = ["not_found (2), such as a: no file", "blocked_url (1), such as b: outside, too"]
    rejected = Result(job="x", run_id="x-1", pending=0, of_those_rejected=said)
    assert words(rejected)["of those rejected"] == "; ".join(said)
    named = Result(job="x", run_id="x-1", pending=0, of_those_rejected=["one", "two"])
    assert words(named)["of those rejected"] == "one, two"


def test_the_table_says_what_happened_to_the_rows(capsys):
    counts = Counts(10, 7, {"empty": 1, "too_small": 2}, {"embed": 9})
    Terminal(width=100).print(Result(job="x", run_id="x-1", pending=3, counts=counts, seconds=2.0, versions={"images": 4}))
    said = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [(name.strip(), value.strip()) for name, value in said] == [
        ("run", "x-1"), ("rows in", "10"), ("rows out", "7"), ("rejects", "3"), ("too_small", "2"), ("empty", "1"),
        ("already done", "0"), ("rows through embed", "9"), ("seconds", "2.0"), ("rows/s", "5.0"),
        ("table images", "version 4"), ("pending", "3"), ("memory mb", "0"),
    ]  # fmt: skip


def test_the_table_says_nothing_of_rows_where_there_are_none(capsys):
    Terminal(width=100).print(Result(job="x", run_id="x-1", pending=3))
    said = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert said == ["run", "pending", "memory mb"]


def test_json_has_numbers_as_numbers_and_no_secret():
    told = json.loads(to_json(FULL, exit=0, error=None))
    assert (told["pending"], told["figures"]["MRR"]) == (1234, {"value": 0.5, "low": 0.25, "high": 0.75, "num": 1200})
    assert (told["counts"]["read"], told["plans"], told["exit"], told["error"]) == (0, {"a": "b"}, 0, None)
    odd = Result(job="x", run_id="x", pending=1, memory_mb=float("nan"), warning="s3://key:hunter2@bucket")
    assert json.loads(to_json(odd))["memory_mb"] is None
    assert b"hunter2" not in to_json(odd)


def finish(config: JobConfig) -> Result:
    run = Run("finish", config)
    if config.limit == 1:
        raise JobFailed("half of the rows were rejected")
    if config.limit == 2:
        raise ZeroDivisionError("of nothing")
    return run.done(run.result(Result, pending=5), counts=Counts(5, 5))


def ended(monkeypatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with pytest.raises(SystemExit) as end:
        start(finish, JobConfig, argv, prog="w2w finish")
    return end.value.code


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        ([], 0, None),
        (["--limit=1"], 1, "half of the rows were rejected"),
        (["--limit=2"], 1, "bug: ZeroDivisionError: of nothing"),
        (["--limit=0"], 2, "--limit=0: must be at least 1"),
        (["--limits=1"], 2, "option --limits does not exist. Did you mean 'limit'?"),
    ],
)
def test_a_scheduler_reads_the_end_of_every_run(tmp_path, monkeypatch, capsys, options, code, error):
    file = tmp_path / "end.json"
    file.write_text('{"exit": 0}')  # of an earlier run
    assert ended(monkeypatch, "--store", str(tmp_path), "--json", str(file), *options) == code
    told = json.loads(file.read_text())
    assert (told["job"], told["exit"], told["error"]) == ("finish", code, error)
    assert (told["run_id"] or "finish-").startswith("finish-")
    assert (told["run_id"] is None) == (code == 2)
    assert told.get("pending") == (5 if code == 0 else None)
    said = capsys.readouterr()
    assert (error is None) == (said.err == "")


def test_standard_output_has_the_json_and_nothing_else(tmp_path, monkeypatch, capsys):
    assert ended(monkeypatch, f"--store={tmp_path}", "--json=-") == 0
    assert json.loads(capsys.readouterr().out)["pending"] == 5
    assert ended(monkeypatch, f"--store={tmp_path}") == 0
    assert "pending" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Run, "__init__", lambda *_: pytest.fail("the job has begun"))
    for where in (str(tmp_path / "file" / "end.json"), str(tmp_path)):
        assert ended(monkeypatch, f"--store={tmp_path}", f"--json={where}") == 2
        assert f"--json={where}: cannot write there" in capsys.readouterr().err
    assert ended(monkeypatch, f"--store={tmp_path}", "--json") == 2
    assert "--json needs the path of a file" in capsys.readouterr().err


def test_a_run_that_is_killed_leaves_no_success_behind(tmp_path, monkeypatch):
    file = tmp_path / "end.json"
    file.write_text('{"exit": 0}')

    def killed(config: JobConfig) -> Result:
        told.append(json.loads(file.read_text()))
        raise UsageError("stop here")

    told: list[dict] = []
    monkeypatch.setattr(sys.modules[__name__], "finish", killed)
    assert ended(monkeypatch, f"--store={tmp_path}", f"--json={file}") == 2
    assert (told[0]["job"], told[0]["exit"]) == ("finish", None)
    assert os.listdir(tmp_path) == ["end.json"]


def test_a_store_that_cannot_be_one_is_a_sentence(capsys):
    """Before a run has an id, too."""
    from w2w.engine.job import start
    from w2w.ingest.job import Config, main

    with pytest.raises(SystemExit) as ended:
        start(main, Config, ["--store=ftp://x/y", "--feed.uri=a.csv"], "w2w ingest")
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "Traceback" not in said
    assert said.startswith("w2w: ")


def test_a_json_file_that_cannot_be_written_is_said_once(capsys, tmp_path):
    from w2w.engine.job import start
    from w2w.ingest.job import Config, main

    with pytest.raises(SystemExit) as ended:
        start(main, Config, [f"--store={tmp_path}", "--feed.uri=a.csv", f"--json={tmp_path}"], "w2w ingest")
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("--json") == 1
