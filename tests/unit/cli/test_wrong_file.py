"""A config of one job given to another is told whose it is."""

import importlib

import pytest

from w2w.cli.main import module_of, owner_of
from w2w.config import UnknownKey, parse
from w2w.engine.job import start


def config_of(job: str) -> type:
    return importlib.import_module(module_of(job)).Config


@pytest.mark.parametrize(
    ("asked", "text", "said"),
    [
        ("ingest", "store: s\nfeed: {uri: f.csv}\nindex: {target_recall: .9}\n", "a config of w2w nightly, which has 'index'"),
        ("embed", "store: s\nfeed: {uri: f.csv}\n", "a config of w2w nightly, which has 'feed'"),
        ("ingest", "store: s\nindx: {}\n", ""),
    ],
)
def test_a_file_of_another_job_is_told_as_such(tmp_path, asked, text, said):
    (tmp_path / "night.yaml").write_text(text)
    with pytest.raises(UnknownKey) as caught:
        parse(config_of(asked), [str(tmp_path / "night.yaml")], f"w2w {asked}")
    told = owner_of(caught.value, asked)
    assert said in told
    assert bool(told) == bool(said)


def test_the_command_says_it(tmp_path, capsys):
    (tmp_path / "night.yaml").write_text("store: s\nindex: {target_recall: .9}\n")
    argv = [str(tmp_path / "night.yaml")]
    with pytest.raises(SystemExit) as left:
        start(lambda config: None, config_of("ingest"), argv, "w2w ingest", lambda e: owner_of(e, "ingest"))
    assert left.value.code == 2
    assert f"w2w nightly {tmp_path}/night.yaml" in capsys.readouterr().err


def test_a_key_within_a_group_is_no_other_jobs(tmp_path):
    (tmp_path / "n.yaml").write_text("feed: {urii: f.csv}\n")
    with pytest.raises(ValueError, match=r"Did you mean 'feed\.uri'") as caught:
        parse(config_of("ingest"), [str(tmp_path / "n.yaml")], "w2w ingest")
    assert not isinstance(caught.value, UnknownKey)


def test_of_a_night_its_step_and_the_jobs_part_are_told(tmp_path):
    (tmp_path / "n.yaml").write_text("store: s\nfeed: {uri: f.csv}\nencoder: {}\nindex: {target_recall: .9}\ntidy: {}\n")
    with pytest.raises(UnknownKey) as caught:
        parse(config_of("index"), [str(tmp_path / "n.yaml")], "w2w index")
    said = owner_of(caught.value, "index")
    assert said.endswith(
        f"this step alone: w2w nightly {tmp_path}/n.yaml --from=index --until=index; a file of its own for w2w index may have "
        "of these keys store, encoder, index"
    )
    assert "this step alone" not in owner_of(caught.value, "search")
