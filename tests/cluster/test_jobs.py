"""doctor, tables and demo: what a person sees."""

import re

import pyarrow as pa
import pytest
from bs4 import BeautifulSoup

from w2w import schema
from w2w.cli import demo, doctor, tables
from w2w.engine.cluster import RayConfig
from w2w.engine.job import show
from w2w.errors import JobFailed, UsageError
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows


@pytest.fixture
def store(tmp_path) -> str:
    """A store with one reject in it, whose source tries to look like terminal markup."""
    lineage = Lineage("ingest", "run-1", "ingest", "v1", {}, {"products": 7}, "test")
    row = {"key": "p1@x", "stage": "ingest", "stage_version": "v1", "code": "empty", "detail": "zero bytes"}
    rows = [row | {"source": "[red]feed.csv:2", "rejected_at": 0, "run_id": "run-1"}]
    append_rows(str(tmp_path), Output(schema.REJECTS), pa.Table.from_pylist(rows, schema=schema.REJECTS.schema), lineage)
    return str(tmp_path)


def test_tables_shows_rows_history_and_rejects(store, capsys):
    show(tables.main(tables.Config(store=store)))
    assert "rejects" in capsys.readouterr().out
    show(tables.main(tables.Config(store=store, table="rejects")))
    history = capsys.readouterr().out
    assert "run-1" in history
    assert "products@7" in history.replace("\n", "")
    show(tables.main(tables.Config(store=store, rejects=True)))
    assert "[red]feed.csv:2: zero bytes" in capsys.readouterr().out
    show(tables.main(tables.Config(store=store, compact=True, vacuum=True, dry_run=True)))
    assert "0 files would be deleted" in capsys.readouterr().out


def test_tables_names_the_nearest_table(store, tmp_path):
    with pytest.raises(UsageError, match=r"no such table\. Did you mean 'rejects'"):
        tables.main(tables.Config(store=store, table="reject"))
    with pytest.raises(UsageError, match="there are no tables at"):
        tables.main(tables.Config(store=str(tmp_path / "nothing")))


def test_doctor_says_what_is_missing(store, tmp_path, capsys):
    show(doctor.main(doctor.Config(store=store)))
    said = capsys.readouterr().out
    assert "FAILED" not in said
    assert "rejects 1" in said.replace("\n", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(JobFailed, match="failed: store can be written"):
        doctor.main(doctor.Config(store=str(tmp_path / "file" / "x")))


@pytest.mark.slow  # `make demo` runs it too
def test_demo_computes_once_and_ends_with_a_report(tmp_path, capsys):
    show(demo.main(demo.Config(store=str(tmp_path / "demo"), products=35, posts=3, ray=RayConfig(num_cpus=2))))
    *lines, gap, where, done = capsys.readouterr().out.splitlines()
    assert (gap, done) == ("", f"Done. Open {tmp_path / 'demo' / 'report.html'}")
    assert where.endswith(f"w2w gallery {tmp_path / 'demo' / 'tables'}")
    steps = [line[:16].strip() for line in lines if re.search(r" \d+\.\d s$", line)]
    nights = [f"{job}, night {n}" for n in (1, 2, 3) for job in ("crawl", "embed", "index")]
    mining = ["detect", "segment", "embed garments", "deduplicate", "split", "represent", "mine", "compose", "audit"]
    always = ["shop", *nights, "search", *mining]
    assert (steps[: len(always)], set(steps[len(always) :]) - {"train", "recommend"}) == (always, set())
    assert all(line.startswith("  ") or line[:16].strip() in steps for line in lines)
    for page in ("report.html", "search/report.html", "search/evaluation.html"):
        soup = BeautifulSoup((tmp_path / "demo" / page).read_text(encoding="utf-8"), "html.parser")
        assert soup.h1.get_text()
    soup = BeautifulSoup((tmp_path / "demo" / "report.html").read_text(encoding="utf-8"), "html.parser")
    jobs = [row.td.get_text() for row in soup.select("table tr") if row.td]
    assert jobs[:3] == ["crawl, night 1", "embed, night 1", "index, night 1"]
    assert all((tmp_path / "demo" / a["href"]).exists() for a in soup.select(".links a"))
