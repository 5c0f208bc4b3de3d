"""A night that fails says what it has done."""

import json
from dataclasses import replace

import pytest

from w2w.check import job as check
from w2w.check.job import CheckConfig
from w2w.engine.job import start
from w2w.errors import JobFailed, UsageError
from w2w.export.job import ExportConfig
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.ingest.job import Result as Ingested
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.nightly import job as nightly
from w2w.nightly.flow_steps import StepsResult, can_tell, is_told_in_part
from w2w.nightly.job import Config
from w2w.nightly.rules import in_the_night
from w2w.shown import Terminal
from w2w.similar.flow import SimilarConfig
from w2w.stage import Counts
from w2w.training.tags.job import Result as Tagged
from w2w.training.tags.job import TagConfig


@pytest.fixture
def steps(monkeypatch):
    """Ingest brings three rows, embed fails."""
    counts = Counts(read=3, out=2, rejects={"missing_image": 1})

    def failing(config):
        raise JobFailed("embed: 2 of 2 rows were rejected")

    done = Ingested(job="ingest", run_id="ingest-1", feed="main", counts=counts, versions={"products": 4})
    monkeypatch.setattr(ingest, "check", lambda config: None)
    monkeypatch.setattr(ingest, "main", lambda config: done)
    monkeypatch.setattr(embed, "main", failing)
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
    monkeypatch.setattr(embed, "main", lambda config: nightly.main(Config(store=str(tmp_path))))
    with pytest.raises(JobFailed, match="another night is at work on this store: nightly-"):
        nightly.main(Config(store=str(tmp_path)))


def test_what_a_step_says_of_its_options_has_their_names_in_the_night(steps, tmp_path, monkeypatch):
    def fails(config):
        raise JobFailed(f"--fail_on: 3 placeholder; --{'store'}={config.store}")

    with pytest.raises(UsageError, match=r"^--check.fail_on=nothing: no kind of finding"):
        nightly.main(Config(store=str(tmp_path), check=CheckConfig(fail_on=["nothing"])))
    monkeypatch.setattr(check, "main", fails)
    with pytest.raises(JobFailed, match=r"^--check.fail_on: 3 placeholder; --store="):
        nightly.main(Config(store=str(tmp_path), check=CheckConfig(fail_on=["placeholder"]), from_="check"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"^--export.out=.*file: cannot write there"):
        nightly.main(Config(store=str(tmp_path / "before"), export=ExportConfig(out=str(tmp_path / "file"))))
    assert not (tmp_path / "before" / "products").exists()
    with pytest.raises(UsageError, match=r"^export.name='a b': letters"):
        nightly.main(Config(store=str(tmp_path), export=ExportConfig(name="a b")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder": EncoderConfig("w2w-fashon")}, r"encoder.name=w2w-fashon: unknown. Did you mean 'w2w-fashion'\?"),
        ({"encoder": EncoderConfig("w2w-fashion", colour=0.7)}, r"encoder.colour=0.7"),
        ({"tag": TagConfig(tagger="gone")}, "--tag.tagger=gone: no tagger there"),
    ],
)
def test_a_model_that_cannot_be_is_refused_before_the_feed_is_read(steps, tmp_path, monkeypatch, options, said):
    read: list[str] = []
    monkeypatch.setattr(ingest, "main", lambda config: read.append(config.store))
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=said):
            nightly.main(Config(store=str(tmp_path), dry_run=dry_run, **options))
    assert not read


def test_a_dry_run_says_that_the_feed_will_bring_more_pictures():
    told = StepsResult(job="nightly", run_id="n", ingest=Ingested(job="ingest", run_id="i", feed="main", pending=3))
    for step in ("detect", "segment", "embed", "tag", "embed_looks"):
        assert is_told_in_part(step, told)
    assert not is_told_in_part("index", told)
    assert not is_told_in_part("embed", replace(told, ingest=replace(told.ingest, pending=0)))


def test_only_whole_names_of_options_are_changed():
    said = "--out=x, --outfit.k=2 and a--out: see --only-this, --only"
    assert in_the_night(said, "export", ["out", "only"]) == (
        "--export.out=x, --outfit.k=2 and a--out: see --only-this, --export.only"
    )


def test_the_summary_tells_rows_by_step(steps, tmp_path, capsys):
    with pytest.raises(JobFailed) as failed:
        nightly.main(Config(store=str(tmp_path)))
    capsys.readouterr()
    Terminal(width=100).print(failed.value.result)
    said = capsys.readouterr().out
    assert "3 rows in, 2 out, 1 rejected" in said
    assert "rows in  " not in said
    assert "rows/s" not in said


@pytest.mark.parametrize("more", [{"pending": 3}, {"pending": 0, "switched": "they would read this tagger's"}])
def test_a_dry_run_waits_for_tags_only_where_they_are_read(tmp_path, more):
    told = StepsResult(job="nightly", run_id="n", tag=Tagged(job="tag", run_id="t", tagger="w2w-tags", encoder="e", **more))
    for similar, tells in ({}, True), ({"brand": "Fjord"}, True), ({"brand": "Fjord", "seen_type": "Shirt"}, False):
        config = Config(store=str(tmp_path), similar=SimilarConfig(filter=similar))
        assert can_tell("similar", config, told, config.store, ()) is tells
    assert not can_tell("export", config, told, config.store, ()), "it sends them"
    settled = replace(told, tag=replace(told.tag, pending=0, switched=None))
    assert can_tell("similar", config, settled, config.store, ())
    assert can_tell("export", config, settled, config.store, ())
