"""What stays of table `rejects` in a store that runs for years."""

import time

from tests.unit.recommend.stores import append
from w2w import schema
from w2w.table import delta, maintain

DAY_US = 24 * 3600 * 1_000_000


def write(store: str, *rows: tuple[str, str, str, float]) -> None:
    """``rows``: key, stage, its version, and how many days ago, in parts of their own."""
    now = time.time_ns() // 1000
    for number, (key, stage, version, days) in enumerate(rows):
        told = {
            "key": key,
            "stage": stage,
            "stage_version": version,
            "code": "http_error",
            "detail": "",
            "run_id": f"r{number}",
        }
        append(store, schema.REJECTS, [told | {"rejected_at": int(now - days * DAY_US)}])


def there(store: str) -> list[tuple]:
    rows = delta.read(store, schema.REJECTS, ["key", "stage", "stage_version", "run_id"])
    return sorted(zip(*(rows.column(c).to_pylist() for c in range(4))))


def test_what_is_rejected_every_night_leaves_its_newest_row_and_those_of_a_month(tmp_path):
    store = str(tmp_path)
    write(store, *(("dead", "ingest", "v", days) for days in (90, 60, 31, 29, 1)))
    write(store, ("dead", "embed", "v", 80), ("dead", "ingest", "w", 85))  # of another stage, and version
    write(store, ("once", "ingest", "v", 300), ("back", "ingest", "v", 70), ("back", "ingest", "v", 65))
    assert maintain.compact(store, schema.REJECTS, dry_run=True).rows_outdated == 4
    assert len(there(store)) == 10
    done = maintain.compact(store, schema.REJECTS)
    assert (done.rows_outdated, done.rows_twice) == (4, 0)
    assert there(store) == [
        ("back", "ingest", "v", "r2"),
        ("dead", "embed", "v", "r0"),
        ("dead", "ingest", "v", "r3"),
        ("dead", "ingest", "v", "r4"),
        ("dead", "ingest", "w", "r1"),
        ("once", "ingest", "v", "r0"),
    ]
    assert maintain.compact(store, schema.REJECTS).rows_outdated == 0


def test_a_store_without_rejects_has_none_to_take_out(tmp_path):
    assert maintain.compact(str(tmp_path), schema.REJECTS, dry_run=True).rows_outdated == 0
