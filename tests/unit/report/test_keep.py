"""Pages of old runs go with `w2w tables --vacuum`; the newest, and what is nobody's, stay."""

from pathlib import Path

import pytest

from tests.unit.gallery.stores import append
from w2w import schema
from w2w.cli import tables
from w2w.errors import UsageError
from w2w.report.page import page_of, write_page

OLD = ["find-20260101T000000-aaaaaa", "search-20260102T000000-aaaaaa", "find-20260103T000000-000000"]


@pytest.fixture
def store(tmp_path) -> Path:
    append(str(tmp_path), schema.PRODUCTS, [{"product_id": "a", "category": "top", "active": True}])
    for job, runs in {"find": OLD, "search": OLD[:1]}.items():
        for run in runs:
            write_page(page_of(str(tmp_path), job, run), "evaluation/leaderboard.html.j2", title=run, boards=[])
    for name in ("mine", "find-2026", "find-20260101T000000-aaaaaa.old"):
        (tmp_path / "reports" / "find" / name).mkdir()
        (tmp_path / "reports" / "find" / name / "index.html").write_text("mine")
    (tmp_path / "reports" / "evaluate").mkdir()
    (tmp_path / "reports" / "evaluate" / "leaderboard.html").write_text("of all runs")
    return tmp_path


def names(store: Path, job: str) -> list[str]:
    return sorted(p.name for p in (store / "reports" / job).iterdir())


def test_the_newest_runs_stay(store):
    before, old = names(store, "find"), [f"{store}/reports/find/{OLD[0]}", f"{store}/reports/find/{OLD[1]}"]
    would = tables.main(tables.Config(store=str(store), vacuum=True, keep_reports=1, dry_run=True))
    assert (would.reports, names(store, "find")) == (tuple(old), before)
    assert tables.main(tables.Config(store=str(store), keep_reports=1)).reports == ()  # without --vacuum
    assert tables.main(tables.Config(store=str(store), vacuum=True, keep_reports=2)).reports == (old[0],)
    assert names(store, "find") == [n for n in before if n != OLD[0]]
    assert tables.main(tables.Config(store=str(store), vacuum=True, keep_reports=1)).reports == (old[1],)
    assert "latest.html" in names(store, "find")
    assert names(store, "search") == [OLD[0], "latest.html"]
    assert names(store, "evaluate") == ["leaderboard.html"]
    assert tables.main(tables.Config(store=str(store), vacuum=True, table="products", keep_reports=1)).reports == ()
    with pytest.raises(UsageError, match=r"^--keep_reports=0: must be at least 1"):
        tables.main(tables.Config(store=str(store), vacuum=True, keep_reports=0))
