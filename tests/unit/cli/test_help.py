"""Help that a person reads: a screen a job, and every option where it is asked for."""

import importlib
import os
import subprocess
import sys
from typing import Any

import pytest

from w2w.cli.main import GROUPS, JOBS, module_of, overview, posts_of_ingest
from w2w.config import parse
from w2w.usage import head, help_text, options, places

ROWS = 30  # of a screen of 100 columns


def config_of(name: str) -> type[Any]:
    return importlib.import_module(module_of(name)).Config


@pytest.mark.parametrize("name", JOBS)
def test_the_help_of_a_job_fits_a_screen(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    config_class = config_of(name)
    with pytest.raises(SystemExit):
        parse(config_class, ["--help"], f"w2w {name}")
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= ROWS
    assert max(map(len, text.splitlines())) <= 100
    found = {option.name: option for option in options(config_class)}
    assert set(places(config_class).values()) <= set(found)
    whole = help_text(config_class, f"w2w {name}", "all")
    assert [n for n in found if f"--{n.removesuffix('_')}" not in whole] == []


@pytest.mark.parametrize("name", JOBS)
def test_every_option_says_what_it_is(name):
    assert [option.name for option in options(config_of(name)) if not option.text] == []


def test_jobs_are_told_by_what_they_are_for():
    lines = overview().splitlines()
    assert [line for line in lines if line in GROUPS] == list(GROUPS)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(JOBS)
    assert max(map(len, lines)) <= 100


def test_defaults_are_those_of_the_job_and_not_of_the_class():
    found = {option.name: option.default for option in options(config_of("detect"))}
    assert found["pool.batch_rows"] == 8


@pytest.mark.parametrize("argv", [["embed", "--help", "all"], ["--help"]])
def test_a_reader_that_goes_away_is_no_mistake(argv):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "w2w", *argv], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("group", "key"), [("tidy", "vacuum_hours"), ("check", "fail_on"), ("similar", "k"), ("tell", "on")])
def test_help_of_a_step_lists_its_keys(group, key, capsys):
    with pytest.raises(SystemExit):
        parse(config_of("nightly"), ["--help", group], "w2w nightly")
    assert f"--{group}.{key}" in capsys.readouterr().out


def test_an_option_that_is_on_is_shown_with_its_values(monkeypatch):
    """Its text says what it does, so that what is typed must not be its opposite."""
    monkeypatch.setenv("COLUMNS", "200")
    text = help_text(config_of("ingest"), "w2w ingest", "fetch")
    (line,) = (line for line in text.splitlines() if "respect_no_ai" in line)
    assert line.split()[:2] == ["--fetch.respect_no_ai", "true|false"]
    assert "[true]" in text.partition("respect_no_ai")[2].partition("--")[0]
    assert (
        parse(config_of("ingest"), ["--store=S", "--fetch.respect_no_ai", "false"], "w2w ingest").fetch.respect_no_ai is False
    )
    assert not [o.name for name in JOBS for o in options(config_of(name)) if o.is_flag and "=false" in head(o)]


def test_a_flag_that_is_decided_by_the_job_can_be_on_or_off(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "--cut_out true|false " in help_text(config_of("find"), "w2w find", "all")
    for argv, cut_out in (([], None), (["--cut_out"], True), (["--cut_out", "false"], False), (["--cut_out=null"], None)):
        assert parse(config_of("find"), ["--store=S", *argv, "--k=3"], "w2w find").cut_out is cut_out, argv


def test_posts_are_ingested_by_the_job_that_reads_them():
    given = ["ingest", "camp.csv", "--kind=posts", "--store=S", "--feed.columns.photo=file", "--dry_run"]
    config = parse(config_of("convert"), posts_of_ingest(given)[1:], "w2w convert")
    assert (config.store, config.set.format, config.set.path, config.dry_run) == ("S", "posts", "camp.csv", True)
    assert config.set.columns == {"photo": "file"}
    assert posts_of_ingest(["ingest", "--kind", "posts", "--feed.uri", "x"])[1:] == ["--set.format=posts", "--set.path", "x"]
    for other in (["ingest", "--feed.uri=x"], ["embed", "--kind=posts"], []):
        assert posts_of_ingest(other) == other
