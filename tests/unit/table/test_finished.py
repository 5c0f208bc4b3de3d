"""Which version of a stage's rows is read: one that is only begun waits."""

import pytest

from tests.unit.table.test_sink import EMBEDDINGS, lineage, receipts, vectors
from w2w import schema
from w2w.stage import Counts
from w2w.table import changes, delta
from w2w.table.marks import Mark
from w2w.table.sink import Committer, append_mark


@pytest.fixture
def run(tmp_path):
    """Writes so many rows of a version; ``ends``: as a run that worked on every row."""

    def written(version: str, num: int, ends: bool, stage: str = "tag", start: int = 0) -> str:
        store, rows = str(tmp_path), vectors([f"{stage}{i}" for i in range(start, start + num)], version)
        committer = Committer(store, [EMBEDDINGS], lineage(version, f"{version}-{stage}-{start}-{ends}", stage))
        committer.add(receipts(store, EMBEDDINGS, rows, Counts(read=num, out=num)))
        mark = Mark(f"{stage}/{version}/images", "embeddings", changes.At("table", 1, "commit"), -1, 0)
        committer.commit(mark if ends else None)
        return store

    return written


def finished(store: str, stage: str = "tag") -> str | None:
    return delta.finished_version(store, schema.EMBEDDINGS, stage)


def test_a_version_that_is_begun_waits_until_a_run_has_finished_it(run):
    store = run("old", 20, ends=True)
    assert finished(store) == "old"
    run("new", 5, ends=False)
    assert finished(store) == "old"
    run("new", 15, ends=True, start=5)
    assert finished(store) == "new"


def test_one_with_nearly_all_rows_counts_as_finished(run):
    store = run("old", 20, ends=True)
    run("new", 17, ends=False)
    assert finished(store) == "old"
    run("new", 1, ends=False, start=17)
    assert finished(store) == "new"


def test_where_no_run_has_finished_the_last_one_written_is_read(run, tmp_path):
    assert finished(str(tmp_path)) is None
    store = run("old", 20, ends=False)
    run("new", 2, ends=False)
    assert finished(store) == "new"


def test_another_stage_of_the_table_does_not_count(run):
    store = run("old", 20, ends=True)
    run("theirs", 30, ends=True, stage="tag-garments")
    assert (finished(store), finished(store, "tag-garments")) == ("old", "theirs")
    assert finished(store, "tag-looks") is None
    run("theirs", 5, ends=False)
    assert finished(store) == "old"  # whatever the other stage wrote of that version


def test_of_several_that_are_begun_the_last_with_enough_rows(run):
    store = run("old", 10, ends=True)
    run("second", 9, ends=False)
    run("third", 3, ends=False)
    assert finished(store) == "second"


def test_a_mark_without_rows_goes_back_also_where_the_log_has_been_cleaned(run, tmp_path):
    store = run("old", 20, ends=True)
    run("new", 20, ends=True)
    assert finished(store) == "new"
    opened = delta.existing(store, schema.EMBEDDINGS)
    opened.create_checkpoint()
    for version in range(opened.version()):
        (tmp_path / "embeddings" / "_delta_log" / f"{version:020d}.json").unlink()
    mark = Mark("tag/old/images", "embeddings", changes.At("table", 1, "commit"), -1, 0)
    assert append_mark(store, EMBEDDINGS, lineage("old", "again", "tag"), mark)
    assert finished(store) == "old"
    run("third", 1, ends=False)
    run("new", 1, ends=False, start=20)
    assert finished(store) == "old", "how many rows it has is not in the log any more: one that is begun waits"
    run("third", 1, ends=True, start=1)
    assert finished(store) == "third"
