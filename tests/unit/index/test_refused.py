"""Pictures that search may not use: a night on which little changed reads as little as others, and says the same of them."""

import shutil
from dataclasses import replace

import pyarrow as pa
import pytest

from tests.unit.nights.nights import without_ray
from tests.unit.recommend.stores import add_vectors, append, fill, product
from w2w import schema
from w2w.index import flow_rows, job
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.index.spec import IndexConfig
from w2w.table.permitted import SEARCH, Permitted


def refuse(store: str, numbers: list[int]) -> None:
    told = {"feed": "main", "search": False, "training": True, "reason": "search: robots.txt says no", "row_digest": "d"}
    told |= {"fetched_at": 0, "run_id": "r", "uri": "u"}
    rows = [told | {"permission_id": f"{n}", "image_id": product(n)["image_id"]} for n in numbers]
    append(store, schema.PERMISSIONS, rows)


def with_pictures(n: int, others: list[int], **more) -> dict:
    images = [{"image_id": product(i)["image_id"], "uri": "u", "fingerprint": "f"} for i in (n, *others)]
    return product(n, images=images, **more)


NIGHTS = [
    [product(3, fetched_at=1, price=3.0), product(30, fetched_at=1)],  # neither is refused
    [product(31, fetched_at=2), with_pictures(5, [32], fetched_at=2)],  # both are, one has another picture
    [product(31, fetched_at=3, active=False), with_pictures(2, [4], fetched_at=3)],  # one goes, a refused one gets another
    [product(2, fetched_at=4), with_pictures(5, [6], fetched_at=4), with_pictures(33, [34, 32], fetched_at=4)],
    [],
]


@pytest.fixture
def nights(tmp_path, monkeypatch):
    """A store with refused pictures, of products that come, go and change; what each night says, and whether it read all."""
    without_ray(monkeypatch)
    read: list[str] = []
    monkeypatch.setattr(job, "read_rows", lambda *a, read_rows=job.read_rows, **m: read.append("all") or read_rows(*a, **m))
    store, folders = str(tmp_path / "store"), list[str]()
    fill(store, range(30), pictures=False)
    add_vectors(store, range(30, 35))
    refuse(store, [1, 2, 31, 32, 33, 34, 77])
    config = job.Config(store=store, index=IndexConfig(layer_from_rows=1, layer_share=1.0, target_recall=0.01))
    config = replace(config, max_reject_rate=1.0)
    job.main(config)

    def run(rows: list[dict]) -> tuple[job.Result, bool, job.Result, str]:
        """The last two: of a copy that reads all."""
        folders.append(str(tmp_path / f"whole{len(folders)}"))
        append(store, schema.PRODUCTS, rows, f"night{len(folders)}")
        shutil.copytree(store, folders[-1])
        read.clear()
        done, all_read = job.main(config), bool(read)
        return done, all_read, job.main(replace(config, store=folders[-1], full_scan=True)), folders[-1]

    return run, store


def test_a_night_with_refused_pictures_reads_as_little_and_says_the_same(nights):
    run, store = nights
    told = []
    for rows in NIGHTS:
        done, all_read, other, whole = run(rows)
        assert not all_read
        for name in ("not_permitted", "why_not_permitted", "counts", "categories", "unchanged", "memory_mb"):
            assert getattr(done, name) == getattr(other, name), name
        told.append((done.not_permitted, done.why_not_permitted))
        one, two = (read_manifest(index_uri(s, "default")) for s in (store, whole))
        assert one.rows_digest == two.rows_digest
        assert sorted(one.standing["refused"]) == sorted(two.standing["refused"])
    assert [num for num, _ in told] == [2, 4, 3, 5, 5]
    assert "search may not use 2 pictures (robots.txt says no), so that 2 products are not found" in told[0][1]
    assert "4 pictures (robots.txt says no), so that 3 products" in told[1][1]
    assert "3 pictures (robots.txt says no), so that 1 product is" in told[2][1]
    assert "5 pictures (robots.txt says no), so that 3 products" in told[3][1]


def test_where_other_pictures_or_too_many_are_refused_all_rows_are_read(nights, monkeypatch):
    run, store = nights
    refuse(store, [8])
    done, all_read, *_ = run([])
    assert (done.not_permitted, all_read, done.taken_out) == (3, True, 1)
    assert run([product(9, fetched_at=5, category="shoes")])[1], "what is published was not made by a night"
    assert not run([product(9, fetched_at=6, category="top")])[1]
    monkeypatch.setattr(flow_rows, "MOST_WITHOUT", 3)
    done, all_read, *_ = run([product(31, fetched_at=7)])
    assert (done.not_permitted, all_read) == (4, True)
    assert run([product(9, fetched_at=8, category="bag")])[1]


def test_rows_that_are_refused_are_told_without_names():
    rows = pa.table({"product_id": ["a", "a", "b"], "image_id": ["x" * 40, "y" * 40, "x" * 40]})
    found = flow_rows.refused_in(rows, Permitted(SEARCH, pa.array(["x" * 40])))
    assert [(one.picture, one.alone) for one in found] == [("x" * 16, False), ("x" * 16, True)]
    assert len({one.product for one in found}) == 2
    assert all(len(one.product) == 32 for one in found)
