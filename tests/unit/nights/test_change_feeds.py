"""Feeds of changes: what they lack stays, what they say is gone goes, each file is applied once and in order."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.nights.nights import Clock, Shop, night, num_rows, products
from w2w import schema
from w2w.errors import BadInput, UsageError
from w2w.ingest.digests import last_of_each
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.table import delta, sink
from w2w.table.current import current_products

HEAD = "product_id,title,price,category,image,gone"


@pytest.fixture
def shop(shop, clock) -> Shop:
    (shop.folder / "changes").mkdir()
    return shop


def line(product: str, price: str = "10.00", image: str = "1.jpg", gone: str = "") -> str:
    return f"{product},a shirt,{price},top,{image},{gone}"


def change(shop: Shop, name: str, *lines: str) -> Path:
    path = shop.folder / "changes" / name
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    return path


def applied(store: str, shop: Shop, feed: dict | None = None, **options):
    told = {"uri": str(shop.folder / "changes"), "full": False, "changes": True, "deleted": "gone"}
    return night(store, shop, told | {"image_root": str(shop.folder)} | (feed or {}), **options)


def test_the_last_of_equal_keys():
    keys = [pa.array(["a", None, "b", "a"]), pa.array([], pa.string()), pa.array(["b", "c", None], pa.string())]
    assert last_of_each(keys).tolist() == [False, True, False, True, True, True, True]
    assert last_of_each([]).tolist() == []
    rng = random.Random(0)
    values = [str(rng.randrange(300)) for _ in range(2000)]
    last = {v: n for n, v in enumerate(values)}
    assert last_of_each([pa.array(values[:900]), pa.array(values[900:])]).tolist() == [
        last[v] == n for n, v in enumerate(values)
    ]


def test_rows_in_are_rows_out_and_rejects_and_deletions_and_those_superseded(tmp_path):
    lines = [
        "1,x,1,top,a.jpg,no",
        "2,x,2,top,b.jpg,",
        "1,x,3,top,a.jpg,0",
        "2,,,,,YES",
        ",x,1,top,a.jpg,",
        "3,x,1,top,,",
        "4,,,,,deleted",
    ]
    lines += ["5,x,1,top,/etc/passwd,1", "6,x,1,top,a.jpg,perhaps", ",,,,,true"]
    (tmp_path / "f.csv").write_text("\n".join([HEAD, *lines]) + "\n")
    (tmp_path / "gone.txt").write_text("SKU\n7\n\n 6 \n")
    config = FeedConfig(uri=str(tmp_path / "f.csv"), deleted="gone", deletions=str(tmp_path / "gone.txt"), attributes=[])
    for batch_rows in (1, 3, 100):
        batches = list(read_feed(config, batch_rows))
        rows = [(r["product_id"], r["price"]) for b in batches for r in b.rows.to_pylist()]
        gone = [r["product_id"] for b in batches for r in b.deleted.to_pylist()]
        codes = [(r["code"] if "code" in r else r[schema.REJECT_CODE]) for b in batches for r in b.rejects.to_pylist()]
        assert (rows, gone) == ([("1", 3)], ["2", "4", "5", "7", "6"])
        assert sorted(codes) == ["missing_field"] * 3
        assert sum(b.num_superseded for b in batches) == 3
        assert len(rows) + len(gone) + len(codes) + 3 == len(lines) + 2
    alone = list(read_feed(FeedConfig(uri=str(tmp_path / "f.csv"), deleted="gone")))
    assert [r["product_id"] for b in alone for r in b.rows.to_pylist()] == ["1", "6"]
    assert sum((b.unread for b in alone), start=alone[0].unread)["deleted"] == 2
    assert all("gone" not in dict(r["attributes"] or []) for b in alone for r in b.rows.to_pylist())


@pytest.mark.parametrize("kind", ["jsonl", "xml", "shopify", "parquet"])
def test_every_kind_of_feed_says_what_is_gone(tmp_path, kind):
    column = "meta.gone" if kind == "jsonl" else "gone"
    if kind == "jsonl":
        told = [{"id": "1", "image": "a.jpg", "meta": {"gone": False}}, {"id": "2", "meta": {"gone": True}}]
        (tmp_path / "f.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told))
    elif kind == "xml":
        item = "<item><id>1</id><title>t</title><image_link>https://s.example/a.jpg</image_link><gone>no</gone></item>"
        (tmp_path / "f.xml").write_text(f"<rss><channel>{item}<item><id>2</id><gone>yes</gone></item></channel></rss>")
    elif kind == "parquet":
        table = pa.table({"id": ["1", "2"], "image": ["a.jpg", None], "gone": [False, True]})
        pq.write_table(table, tmp_path / "f.parquet")
    else:
        text = "Handle,Title,Variant Price,Image Src,gone\n1,A,5,https://s.example/a.jpg,\n1,,6,,\n2,,,,true\n"
        (tmp_path / "f.csv").write_text(text)
    (uri,) = tmp_path.iterdir()
    batches = list(read_feed(FeedConfig(uri=str(uri), deleted=column)))
    assert [r["product_id"] for b in batches for r in b.rows.to_pylist()] == ["1"]
    assert [r["product_id"] for b in batches for r in b.deleted.to_pylist()] == ["2"]
    assert sum(b.rejects.num_rows for b in batches) == 0
    with pytest.raises(UsageError, match=r"no column 'gnoe' for feed\.deleted"):
        check_feed(FeedConfig(uri=str(uri), deleted="gnoe"))


def test_changes_are_applied_in_order_and_once(store, shop):
    night(store, shop, {"full": False})
    change(shop, "01.csv", line("p1", "11.00"), line("p2", "12.00"), line("p1", "13.00"))
    change(shop, "02.csv", line("p2", gone="1"), line("new", "5.00"), line("nobody", gone="true"))
    change(shop, ".03.csv", line("p4", "99.00"))
    said = applied(store, shop, dry_run=True)
    told = (
        said.change_files,
        said.feed_rows,
        said.rows_superseded,
        said.deletions,
        said.deletions_of_no_product,
        said.withdrawn,
    )
    assert told == (2, 2, 2, 2, 1, 1)
    done = applied(store, shop)
    assert (done.change_files, done.counts.out, done.withdrawn, done.missing) == (2, 2, 1, None)
    now = products(store)
    assert (now["p1"]["price"], now["new"]["price"], "p2" in now, now["p3"]["price"], len(now)) == (13, 5, False, 10, 20)
    before = num_rows(store)
    again = applied(store, shop)
    assert (again.versions, again.change_files, again.feed_rows, num_rows(store)) == ({}, 0, 0, before)
    change(shop, "03.csv", line("p2", "20.00"), line("p1", gone="no"))
    assert applied(store, shop).change_files == 1
    (shop.folder / "changes" / "04.deleted").write_text("p5\np6\n")
    assert (applied(store, shop).withdrawn, products(store)["p2"]["price"]) == (2, 20)
    assert not {"p5", "p6"} & set(products(store))


def test_a_file_that_comes_too_late_or_has_changed_is_told(store, shop):
    change(shop, "02.csv", line("p1"))
    applied(store, shop)
    change(shop, "01.csv", line("p1", "9.00"))
    with pytest.raises(BadInput, match=r"01\.csv is new, but its name comes before 02\.csv, applied on"):
        applied(store, shop)
    (shop.folder / "changes" / "01.csv").unlink()
    change(shop, "02.csv", line("p1"), line("p2"))
    with pytest.raises(BadInput, match=r"02\.csv was applied on .* with .* bytes, now .*: give it a new name"):
        applied(store, shop)
    (shop.folder / "changes" / "02.csv").unlink()  # what was applied may go
    assert applied(store, shop).change_files == 0
    assert products(store)["p1"]["price"] == 10


def test_an_empty_folder_and_an_empty_file_change_nothing(store, shop):
    assert applied(store, shop).versions == {}
    change(shop, "01.csv")
    done = applied(store, shop)
    assert (done.feed_rows, done.change_files, set(done.versions)) == (0, 1, {"change_files"})


def test_with_a_limit_the_rest_comes_later(store, shop):
    change(shop, "01.csv", line("p1"), line("p2"), line("p3"))
    assert applied(store, shop, limit=2).counts.out == 2
    assert applied(store, shop).counts.out == 1
    assert (set(products(store)), applied(store, shop).change_files) == ({"p1", "p2", "p3"}, 0)


def test_a_run_that_dies_is_repeated_to_the_same_rows(tmp_path, shop, monkeypatch):
    """Dies at every commit, before it and after it."""
    change(shop, "01.csv", line("p1", "11.00"), line("p2", gone="1"), line("p3", image="nowhere.jpg"))
    change(shop, "02.csv", line("p1", "12.00"), line("p4", gone="1"), line("p2"))
    keep = ("product_id", "price", "active", "image_id", "row_digest")

    def state(store: str) -> list[dict]:
        rows = current_products(store, schema.PRODUCTS.schema.names).to_pylist()
        return sorted(({c: r[c] for c in keep} for r in rows), key=lambda r: r["product_id"])

    def prepared(name: str) -> str:
        store = str(tmp_path / name)
        night(store, shop, {"full": False})
        return store

    undisturbed = prepared("undisturbed")
    applied(undisturbed, shop)
    wanted = state(undisturbed)
    commit, deaths = sink._commit, 0
    for at in range(1, 9):
        store, left = prepared(f"killed{at}"), [(at + 1) // 2]

        def dying(*args, after=at % 2, left=left, **kwargs):
            left[0] -= 1
            if left[0] == 0 and not after:
                raise KeyboardInterrupt
            result = commit(*args, **kwargs)
            if left[0] == 0:
                raise KeyboardInterrupt
            return result

        with monkeypatch.context() as patched:
            patched.setattr(sink, "_commit", dying)
            try:
                applied(store, shop)
            except KeyboardInterrupt:
                deaths += 1
        done = applied(store, shop)
        assert state(store) == wanted, at
        assert delta.read(store, schema.CHANGE_FILES, [schema.FILE]).num_rows == 2
        assert applied(store, shop).change_files == 0, done
    assert deaths >= 4


def test_more_deletions_than_the_limit_are_refused(store, shop):
    night(store, shop, {"full": False})
    change(shop, "01.csv", *(line(f"p{n}", gone="1") for n in range(5)))
    said = r"5 of the 20 active products of feed 'main' are said to be gone, more than max_withdrawn_rate=0\.1 allows"
    for dry_run in (True, False):
        with pytest.raises(BadInput, match=said):
            applied(store, shop, dry_run=dry_run)
    assert len(products(store)) == 20
    assert (applied(store, shop, withdraw_missing=5).withdrawn, len(products(store))) == (5, 15)


def test_another_feeds_product_is_not_ours_to_delete(store, shop):
    night(store, shop, {"full": False, "id": "theirs"})
    change(shop, "01.csv", line("p1", gone="1"), line("mine"))
    done = applied(store, shop, max_reject_rate=1)
    assert (done.counts.rejects, done.deletions, "p1" in products(store)) == ({"duplicate_key": 1}, None, True)


def test_a_full_feed_may_say_what_is_gone_too(store, shop, monkeypatch):
    Clock(monkeypatch)
    night(store, shop)
    (shop.folder / "gone.txt").write_text("p7\n")
    del shop.items["p8"]
    done = night(store, shop, {"deletions": str(shop.folder / "gone.txt")})
    assert (done.withdrawn, done.missing, done.rows_superseded) == (1, 1, 1)
    assert {"p7", "p8"} - set(products(store)) == {"p7"}
    again = night(store, shop, {"deletions": str(shop.folder / "gone.txt")})
    assert (again.versions, again.deletions_of_no_product) == ({}, 1)


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({"changes": True}, "feed.full, feed.changes: a feed lists the whole catalog, or what has changed"),
        ({"deletions": "nowhere.txt"}, "feed.deletions=nowhere.txt: no such file"),
    ],
)
def test_what_does_not_go_together_is_told(store, shop, feed, said):
    with pytest.raises(UsageError, match=said):
        night(store, shop, feed)
