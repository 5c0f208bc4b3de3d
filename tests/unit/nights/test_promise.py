"""A dry run reads the whole feed, tries ten products, writes nothing, and what it says is what the run then does."""

import csv
import io
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.nights.nights import Clock, jpeg, num_rows, without_ray
from tests.unit.nights.nights import products as active
from w2w import schema
from w2w.errors import TooManyRejects
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.results import to_json, words
from w2w.stage import Pool
from w2w.table import delta

HEADER = ("product_id", "title", "price", "currency", "sale_price", "availability", "category", "url", "image", "images")
CATEGORIES = ("Apparel > Tees", "Apparel > Jeans", "Apparel", "Gifts", "")
MAP = {"Apparel > Tees": "top", "Apparel > Jeans": "bottom"}


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    without_ray(monkeypatch)
    Clock(monkeypatch)
    folder = tmp_path / "shop"
    folder.mkdir()
    for n in range(10):
        (folder / f"{n}.jpg").write_bytes(jpeg(n))
    return folder


def write(shop: Path, rng: random.Random, num: int) -> None:
    """A feed with every fault that its text shows, and files that are not there."""

    def pick(good: str, *bad: str) -> str:
        return rng.choice([good] * 8 + list(bad))

    rows = []
    for n in range(num):
        product = pick(f"p{n}", f"p{rng.randrange(num)}", "")
        further = ", ".join(pick(f"{rng.randrange(10)}.jpg", "gone.jpg", "../../x.jpg") for _ in range(rng.randrange(4)))
        front = pick(f"{rng.randrange(10)}.jpg", "gone.jpg", "", "/etc/passwd")
        url = pick(f"https://x.test/{n}", "javascript:x")
        said = (pick("9.90", "ask"), pick("EUR", "Taler"), pick("5", "?", "99"), pick("in stock", "maybe"))
        rows.append([product, f"t{rng.randrange(3)}", *said, rng.choice(CATEGORIES), url, front, further])
    with (shop / "feed.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
        file.write("too,few\n" if rng.random() < 0.5 else "")


def run(store: str, shop: Path, dry_run: bool, **feed) -> ingest.Result:
    source = FeedConfig(uri=str(shop / "feed.csv"), full=True, category_map=MAP, max_unread_rate=1, **feed)
    options = {"pool": Pool(workers=1), "max_reject_rate": 1, "max_withdrawn_rate": 1, "dry_run": dry_run}
    return ingest.main(ingest.Config(store=store, feed=source, **options))


@pytest.mark.parametrize("seed", range(6))
def test_what_it_promises_is_what_happens(shop, tmp_path, seed):
    rng, store = random.Random(seed), str(tmp_path / "store")
    for night in range(3):
        if night < 2:
            write(shop, rng, rng.randint(1, 60))
        before = num_rows(store), sorted(Path(store).rglob("*")) if Path(store).exists() else []
        told = run(store, shop, dry_run=True, max_unreadable=99)
        assert (num_rows(store), sorted(Path(store).rglob("*")) if Path(store).exists() else []) == before
        warned = delta.count_rows(delta.open_table(store, schema.WARNINGS))
        done = run(store, shop, dry_run=False, max_unreadable=99)
        for name in ("feed_rows", "pending", "skipped", "rejected_before", "values_not_read", "unmapped_categories", "missing",
                     "withdrawn", "rows_without_a_readable_id", "broken_pictures_beside_the_front"):  # fmt: skip
            assert getattr(told, name) == getattr(done, name), name
        assert told.pending == done.counts.read
        assert told.would_be_rejected == done.counts.rejects
        found = delta.read(store, schema.WARNINGS, [schema.COLUMN, schema.RUN_ID]).to_pylist()
        said = Counter(r[schema.COLUMN] for r in found if r[schema.RUN_ID] == done.run_id)
        assert warned + said.total() == len(found)
        assert said["images"] == sum(told.broken_pictures_beside_the_front.values())
        rows = active(store)
        assert set(told.examples) <= set(rows)
        for product, shown in told.examples.items():
            row = rows[product] | {"images": [p["uri"] for p in rows[product]["images"]]}
            row["attributes"] = dict(row["attributes"])
            assert shown == {name: row[name] for name in shown}
            assert all(row[name] in (None, []) for name in row.keys() - shown.keys() - HIDDEN)


HIDDEN = {"product_id", "row_digest", "fetched_at", "active", "image_uri", "image_fingerprint"}


def test_a_first_night_is_told_whole(shop, tmp_path):
    write(shop, random.Random(3), 50)
    store = str(tmp_path / "store")
    told = run(store, shop, dry_run=True)
    assert not Path(store).exists()
    assert (told.products_tried, len(told.examples)) == (10, 3)
    assert told.pictures_tried >= 10
    done = run(store, shop, dry_run=False)
    warned = Counter(delta.read(store, schema.WARNINGS, [schema.COLUMN]).column(0).to_pylist())
    assert all(told.values_not_read[column] >= num for column, num in warned.items() if column != "images")
    assert warned["images"] == sum(told.broken_pictures_beside_the_front.values()) > 0
    assert done.counts.out == told.pending - sum(told.would_be_rejected.values()) == len(active(store))
    kept = Counter(row[schema.CATEGORY] for row in active(store).values())
    listed = {ours: sum(theirs.values()) for ours, theirs in told.categories.items()}
    assert {ours: listed[ours] >= kept[ours] > 0 for ours in listed} == dict.fromkeys(("bottom", "etc", "top"), True)
    assert sum(listed.values()) == told.feed_rows - sum(told.would_be_rejected.values()) + told.would_be_rejected["not_found"]
    assert set(told.categories["etc"]) == {"Apparel", "Gifts", "none"}


def test_it_is_told_in_words_and_as_json(shop, tmp_path):
    (shop / "torn.jpg").write_bytes(jpeg(1)[:200])
    lines = ["1,\x1b[2Jtitle,5,top,0.jpg,torn.jpg", "2,b,6,top,torn.jpg,1.jpg"]
    (shop / "feed.csv").write_text("product_id,title,price,category,image,images\n" + "\n".join(lines))
    told = run(str(tmp_path / "store"), shop, dry_run=True)
    assert sorted(told.broken_of_those_tried) == ["1: truncated, beside the front", "2: truncated"]
    assert json.loads(to_json(told))["examples"]["1"]["images"] == [str(shop / "0.jpg")]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(told)
    text = console.export_text()
    assert "examples, 1" in text
    assert "price: 5" in text


def test_a_feed_that_would_fail_the_night_fails_the_dry_run(shop, tmp_path):
    lines = [f"{n},gone.jpg" for n in range(20)] + [f"{n},{n - 20}.jpg" for n in range(20, 30)]
    (shop / "feed.csv").write_text("product_id,image\n" + "\n".join(lines))
    for dry_run in (True, False):
        config = ingest.Config(
            store=str(tmp_path / "store"), feed=FeedConfig(uri=str(shop / "feed.csv")), dry_run=dry_run, pool=Pool(workers=1)
        )
        with pytest.raises(TooManyRejects, match="20 of 30 rows"):
            ingest.main(config)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("/elsewhere/{n}.jpg", "blocked_url (20), such as 0: '/elsewhere/0.jpg' is outside image_root="),
        ("no/{n}.jpg", "not_found (20), such as"),
    ],
)
def test_a_feed_that_is_all_rejected_says_why(shop, tmp_path, picture, said):
    lines = [f"{n},{picture.format(n=n)}" for n in range(20)]
    (shop / "feed.csv").write_text("product_id,image\n" + "\n".join(lines))
    with pytest.raises(TooManyRejects, match="20 of 20 rows") as caught:
        ingest.main(ingest.Config(store=str(tmp_path / "store"), feed=FeedConfig(uri=str(shop / "feed.csv")), dry_run=True))
    assert said in str(caught.value)
    assert "feed.image_root says where pictures are" in str(caught.value)
    assert "tables" not in str(caught.value)


def test_a_run_says_of_what_it_has_rejected_why_and_what_cures_it(shop, tmp_path):
    lines = [f"{n},{n % 10}.jpg" for n in range(30)] + ["a,/elsewhere/1.jpg", "b,gone.jpg", "c,gone.jpg"]
    (shop / "feed.csv").write_text("product_id,image\n" + "\n".join(lines))
    done = run(str(tmp_path / "store"), shop, dry_run=False)
    missing, outside = done.of_those_rejected
    assert missing == f"not_found (2), such as {shop}/feed.csv:33: {shop}/gone.jpg: No such file or directory"
    assert outside.startswith(f"blocked_url (1), such as {shop}/feed.csv:32: '/elsewhere/1.jpg' is outside image_root={shop}: ")
    assert outside.endswith("feed.image_root says where pictures are")
    assert words(done)["of those rejected"] == f"{missing}; {outside}"
    assert run(str(tmp_path / "store"), shop, dry_run=False).of_those_rejected == done.of_those_rejected, "asked for again"
