"""A night that fails says what it has done."""

import json
from dataclasses import replace

import pytest

from w2w.engine.job import start
from w2w.errors import JobFailed, UsageError
from w2w.ingest.feed import FeedConfig
from w2w.ingest.job import Result as Ingested
from w2w.nightly import job as nightly
from w2w.nightly.job import Config
from w2w.stage import Counts


@pytest.fixture
def steps(monkeypatch):
    """Ingest brings three rows, embed fails."""
    counts = Counts(read=3, out=2, rejects={"missing_image": 1})

    def failing(config):
        raise JobFailed("embed: 2 of 2 rows were rejected")

    done = Ingested(job="ingest", run_id="ingest-1", feed="main", counts=counts, versions={"products": 4})
    monkeypatch.setattr(nightly.ingest, "check", lambda config: None)
    monkeypatch.setattr(nightly.ingest, "main", lambda config: done)
    monkeypatch.setattr(nightly.embed, "main", failing)
    return done


def test_the_steps_that_were_done_are_told(steps, tmp_path):
    with pytest.raises(JobFailed) as failed:
        nightly.main(Config(store=str(tmp_path)))
    assert failed.value.result.ingest == steps
    assert failed.value.result.embed is None
    assert failed.value.result.counts == replace(steps.counts)
    assert failed.value.result.versions == {"products": 4}


def test_they_stand_in_the_file_too(steps, tmp_path, capsys):
    file = tmp_path / "night.json"
    with pytest.raises(SystemExit) as ended:
        start(nightly.main, Config, [f"--store={tmp_path}", f"--json={file}"], "w2w nightly")
    told = json.loads(file.read_text())
    assert ended.value.code == told["exit"] == 1
    assert told["error"] == "embed: 2 of 2 rows were rejected"
    assert (told["ingest"]["counts"]["out"], told["job"]) == (2, "nightly")


def test_a_wrong_feed_is_told_before_anything_is_written(tmp_path):
    for feed in ({"uri": str(tmp_path / "gone.csv")}, {"uri": str(tmp_path / "gone.csv"), "id": "site:x"}):
        with pytest.raises(UsageError, match=r"feed\.(uri|id)="):
            nightly.main(Config(store=str(tmp_path / "store"), feed=FeedConfig(**feed)))
    assert not (tmp_path / "store").exists()


def test_a_night_that_still_runs_is_not_joined(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(nightly.embed, "main", lambda config: nightly.main(Config(store=str(tmp_path))))
    with pytest.raises(JobFailed, match="another night is at work on this store: nightly-"):
        nightly.main(Config(store=str(tmp_path)))
