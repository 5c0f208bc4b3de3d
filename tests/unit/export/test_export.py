"""`w2w export`: what files say is what the store has, also after nights and after runs that were killed anywhere."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import w2w
from tests.unit.recommend.stores import add_vectors, append, fill, product, vector
from w2w import schema, storage
from w2w.errors import JobFailed, UsageError
from w2w.export import flow, job
from w2w.export.job import Config, main
from w2w.export.rules import FORMATS, point_id
from w2w.models.config import EncoderConfig
from w2w.table import delta
from w2w.table.current import current_products


@pytest.fixture
def store(tmp_path) -> str:
    place = str(tmp_path / "store")
    fill(place, range(30), pictures=False)
    return place


def night(store: str, at: int, rng: np.random.Generator) -> None:
    rows = [product(int(n), fetched_at=at, price=float(rng.integers(99))) for n in rng.choice(30, 5, replace=False)]
    rows += [product(int(n), fetched_at=at, active=False) for n in rng.choice(30, 3, replace=False)]
    rows = list({row["product_id"]: row for row in rows}.values())
    append(store, schema.PRODUCTS, [*rows, product(30 + at, fetched_at=at)], f"night{at}")
    add_vectors(store, [30 + at])


def sold(store: str) -> dict[str, float]:
    rows = current_products(store, [schema.PRODUCT_ID, schema.PRICE, schema.ACTIVE]).to_pylist()
    return {row[schema.PRODUCT_ID]: row[schema.PRICE] for row in rows if row[schema.ACTIVE]}


def replayed(folder: Path) -> dict[str, dict]:
    """What a target has that reads the files in order."""
    found: dict[str, dict] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if row.pop("op") == "delete":
                found.pop(row["product_id"], None)
            else:
                found[row["product_id"]] = row
    return found


def prices(folder: Path) -> dict[str, float]:
    return {product: row["price"] for product, row in replayed(folder).items()}


def config(store: str, out: Path, **more) -> Config:
    return Config(store=store, out=str(out), batch_rows=7, **more)


def test_only_what_changed_goes_out_and_each_change_once(store, tmp_path):
    out, rng = tmp_path / "out", np.random.default_rng(0)
    said = main(config(store, out, dry_run=True))
    assert (said.upserts, said.deletions, said.batches, out.exists()) == (30, 0, 5, False)
    first = main(config(store, out))
    assert (first.upserts, first.deletions, first.last_batch, first.there) == (30, 0, 5, 30)
    assert prices(out) == sold(store)
    assert main(config(store, out)).batches == 0
    for at in range(1, 5):
        before, files = sold(store), set(out.iterdir())
        night(store, at, rng)
        now = sold(store)
        said, result = main(config(store, out, dry_run=True)), main(config(store, out))
        changed = {p for p in now if now[p] != before.get(p)}
        assert said.upserts == result.upserts == len(changed)
        assert said.deletions == result.deletions == len(before.keys() - now.keys())
        assert result.there == len(now)
        new = sorted(set(out.iterdir()) - files)
        lines = [json.loads(line) for file in new for line in file.read_text().splitlines()]
        assert len(lines) == len({line["product_id"] for line in lines}) == result.upserts + result.deletions
        assert prices(out) == now
    assert main(config(store, out, again=True)).upserts == len(now)


def test_half_written_files_of_a_killed_run_go_with_the_next(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".default-000002.csv.bac23bbd").write_text("half")
    others = {".default-more-000002.csv.bac23bbd", ".other-000002.csv.bac23bbd", "default-notes.csv.bac23bbd"}
    for name in others:
        (out / name).write_text("another's")
    main(config(store, out, to="csv"))
    assert {p.name for p in out.iterdir()} == others | {f"default-{n:06d}.csv" for n in range(1, 6)}


def test_deletions_are_in_batches_of_their_own(store, tmp_path):
    out = tmp_path / "out"
    main(config(store, out))
    append(store, schema.PRODUCTS, [product(0, fetched_at=1, active=False), product(1, fetched_at=1, price=1.5)], "night")
    result = main(config(store, out))
    assert (result.upserts, result.deletions, result.batches) == (1, 1, 2)
    last = [json.loads(line) for file in sorted(out.iterdir())[-2:] for line in file.read_text().splitlines()]
    assert [(row["op"], row["product_id"]) for row in last] == [("upsert", "p001"), ("delete", "p000")]


def test_what_is_the_stores_alone_is_not_sent(store, tmp_path):
    picture = {"image_id": "i", "uri": "/shop/a.jpg", "position": 1, "role": "front", "fingerprint": "12:34"}
    append(store, schema.PRODUCTS, [product(0, fetched_at=1, images=[picture])], "night")
    main(config(store, tmp_path / "out"))
    assert replayed(tmp_path / "out")["p000"]["images"] == [{k: v for k, v in picture.items() if k != "fingerprint"}]


class Killed(BaseException):
    pass


def test_a_run_that_is_killed_anywhere_and_runs_again_ends_as_if_undisturbed(store, tmp_path, monkeypatch):
    """Each step that lasts is made or left out where the run is killed: 20 times, while nights change the catalog."""
    out, rng, left = tmp_path / "out", np.random.default_rng(1), [10**9]

    def deadly(step):
        def run(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                if rng.random() < 0.5:
                    step(*arguments, **options)
                raise Killed
            return step(*arguments, **options)

        return run

    for owner, name in ((storage, "replace_if"), (storage, "write_bytes"), (storage, "delete"), (flow.Committer, "add")):
        monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))
    kills, repeated, contents = 0, 0, {}
    for at in range(1, 200):
        night(store, at, rng)
        left[0] = int(rng.integers(1, 30))
        try:
            result = main(config(store, out))
        except Killed:
            kills += 1
        else:
            repeated += result.repeated is not None
        left[0] = 10**9
        for file in out.glob("*.jsonl"):  # whoever has read a file has read all that it will ever say
            assert contents.setdefault(file.name, file.read_bytes()) == file.read_bytes()
        if kills == 20:
            break
    assert (kills, repeated > 0) == (20, True)
    result = main(config(store, out))
    assert prices(out) == sold(store)
    assert result.there == len(sold(store))
    numbers = sorted(int(file.stem.split("-")[1]) for file in out.glob("*.jsonl"))
    assert numbers == list(range(1, result.last_batch + 1))
    assert not list((tmp_path / "store" / "_export" / "default").glob("*.parquet"))


def test_a_batch_of_a_killed_run_is_sent_as_it_was(store, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as dying:
        dying.setattr(flow.Committer, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(config(store, out))
    (file,) = out.iterdir()
    before = file.read_bytes()
    append(store, schema.PRODUCTS, [product(n, fetched_at=1, price=1.0) for n in range(30)], "night")
    assert main(config(store, out, dry_run=True)).repeated == 1
    result = main(config(store, out))
    assert (result.repeated, file.read_bytes()) == (1, before)
    assert prices(out) == sold(store) == {f"p{n:03d}": 1.0 for n in range(30)}
    assert result.upserts == 37


def test_two_runs_of_one_export_do_not_go_at_once(store, tmp_path, monkeypatch):
    other = config(store, tmp_path / "out")
    put = flow.Outbox.put

    def overtaken(self, batch):
        monkeypatch.undo()
        append(store, schema.PRODUCTS, [product(0, fetched_at=1, price=77.0)], "night")
        main(other)
        put(self, batch)

    monkeypatch.setattr(flow.Outbox, "put", overtaken)
    with pytest.raises(JobFailed, match="another run"):
        main(other)  # its first batch has an older price
    assert prices(tmp_path / "out") == sold(store)
    assert main(other).batches == 0


def test_what_pictures_show_classes_similar_products_and_vectors_go_along(store, tmp_path):
    image = product(3)["image_id"]
    told = {"owner_id": image, "owner_kind": "image"}
    tags = [{"attribute": "type", "value": "shirt", "score": 0.9}, {"attribute": "colour", "value": None, "score": 0.2}]
    append(store, schema.TAGGED, [told | {"tags": tags, "swatch": "#ffffff", "stage_version": "v"}], "tag")
    classes = [told | {"category": "top", "score": 0.9, "accepted": True, "model_version": "v"}]
    append(store, schema.CLASSIFICATIONS, classes, "classify")
    w2w.similar(store=store, k=2)
    picture = {"image_id": "i", "uri": "https://cdn.example/a.jpg?token=sesame", "position": 1, "role": "front"}
    append(store, schema.PRODUCTS, [product(99, images=[picture], sale_price=5.0)], "new")
    main(config(store, tmp_path / "out", vectors=True))
    found = replayed(tmp_path / "out")
    row = found["p003"]
    assert (row["classified"], row["seen"], row["attributes"]) == ("top", {"type": "shirt"}, {"colour": "blue"})
    assert [e["product_id"] for e in row["similar"]] == w2w.open(store).similar("p003")[schema.PRODUCT_ID].to_pylist()
    assert np.allclose(row["vector"], vector(3))
    assert not {"vector", "model_version", "similar", "classified", "seen"} & set(found["p099"])  # came without a vector
    assert (found["p099"]["images"][0]["uri"], found["p099"]["sale_price"]) == ("https://cdn.example/a.jpg?token=***", 5.0)
    add_vectors(store, [99])
    result = main(config(store, tmp_path / "out", vectors=True))
    assert result.upserts == 1
    assert np.allclose(replayed(tmp_path / "out")["p099"]["vector"], vector(99))
    w2w.similar(store=store, k=2)  # p099 is in lists now, and has one
    changed = main(config(store, tmp_path / "out", vectors=True)).upserts
    assert 1 <= changed < 30
    assert main(config(store, tmp_path / "out")).upserts == 31  # other options: all of it


def test_bulk_forms(store, tmp_path):
    append(store, schema.PRODUCTS, [product(99, title='"\u2028</script>\n', price=float("nan"))], "odd")
    for to in FORMATS:
        main(config(store, tmp_path / to, to=to, name=to, vectors=True))
    append(store, schema.PRODUCTS, [product(3, fetched_at=1, active=False), product(4, fetched_at=1, price=2.0)], "night")
    for to in FORMATS:
        main(config(store, tmp_path / to, to=to, name=to, vectors=True, collection="goods"))

    def lines(to: str, at: int = -1) -> list[dict]:
        return [json.loads(line) for line in sorted((tmp_path / to).iterdir())[at].read_text().split("\n") if line]

    bulk = [row for at in range(-6, 0) for row in lines("elasticsearch", at)]
    assert FORMATS["opensearch"] == FORMATS["elasticsearch"]
    assert {"delete": {"_index": "goods", "_id": "p003"}} in bulk
    at = bulk.index({"index": {"_index": "goods", "_id": "p004"}})
    assert (bulk[at + 1]["price"], len(bulk[at + 1]["vector"])) == (2.0, 16)
    odd = bulk[bulk.index({"index": {"_index": "goods", "_id": "p099"}}) + 1]
    assert (odd["title"], odd["price"]) == ('"\u2028</script>\n', None)
    bodies = [row["operations"] for at in range(-6, 0) for row in lines("qdrant", at)]
    points = {p["id"]: p for body in bodies for o in body if "upsert" in o for p in o["upsert"]["points"]}
    assert point_id("p099") not in points  # has no vector
    assert points[point_id("p004")]["payload"]["product_id"] == "p004"
    assert "vector" not in points[point_id("p004")]["payload"]
    assert len(points) == 29
    assert {"delete": {"points": [point_id("p003")]}} in bodies[-1]
    feed = [row for at in range(-6, 0) for row in lines("vespa", at)]
    assert {"remove": "id:goods:goods::p003"} in feed
    (put,) = [row["fields"] for row in feed if row.get("put") == "id:goods:goods::p004"]
    assert np.allclose(put["vector"]["values"], vector(4))
    with open(sorted((tmp_path / "csv").iterdir())[-1], newline="") as text:
        rows = list(csv.DictReader(text))
    assert [(r["op"], r["product_id"], r["title"]) for r in rows][-1] == ("delete", "p003", "")
    assert all(json.loads(r["attributes"])["colour"] for r in rows if r["op"] == "upsert")
    table = pq.read_table(sorted((tmp_path / "parquet").iterdir())[-1])
    assert table.schema.names == schema.CHANGE.names
    assert table["op"].to_pylist()[-1] == "delete"


def test_notes_that_count_no_more_are_dropped(store, tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "_MOST_STALE", 1)
    out = tmp_path / "out"
    for at in range(6):
        append(store, schema.PRODUCTS, [product(n, fetched_at=at, price=float(at)) for n in range(30)], f"night{at}")
        main(config(store, out))
        assert main(config(store, out)).batches == 0
    append(store, schema.PRODUCTS, [product(n, fetched_at=9, active=False) for n in range(30)], "gone")
    assert main(config(store, out)).deletions == 30
    again = main(config(store, out))
    assert (again.batches, again.there, again.last_batch) == (0, 0, 35)
    assert delta.count_rows(delta.open_table(store, schema.EXPORTED)) < 100
    append(store, schema.PRODUCTS, [product(1, fetched_at=10)], "back")
    assert main(config(store, out)).last_batch == 36
    assert prices(out) == sold(store)


def test_limit_goes_on_where_it_stopped_and_mistakes_are_told(store, tmp_path):
    out = tmp_path / "out"
    assert [main(config(store, out, limit=20)).upserts for _ in range(3)] == [20, 10, 0]
    assert prices(out) == sold(store)
    for wrong, told in (
        ({"to": "elastic"}, "elasticsearch"),
        ({"to": "qdrant"}, "--vectors"),
        ({"name": "../x"}, "name"),
        ({"collection": "a b"}, "collection"),
    ):
        with pytest.raises(UsageError, match=told):
            main(replace(config(store, out), **wrong))
    with pytest.raises(UsageError, match="w2w ingest"):
        main(config(str(tmp_path / "nothing"), out))
    assert job.Config(store="x").out is None


def test_what_has_no_vector_yet_is_told(store, tmp_path):
    """Where it is all that is sold, such as after a change of the model, vectors that a target has are not taken from it."""
    out, other = tmp_path / "out", EncoderConfig("efficientnet-lite0")
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"no active product has a vector of .* \(efficientnet-lite0\): run 'w2w embed'"):
            main(config(store, out, vectors=True, encoder=other, dry_run=dry_run))
    append(store, schema.PRODUCTS, [product(40), product(41)], "new")
    assert main(config(store, out, vectors=True)).without_vector == 2
    assert sum("vector" not in row for row in replayed(out).values()) == 2
    add_vectors(store, [40, 41])
    later = main(config(store, out, vectors=True))
    assert (later.upserts, later.without_vector) == (2, None)


def test_vectors_of_a_store_in_which_nothing_is_sold(tmp_path):
    """As after a first night whose every row is rejected."""
    store = str(tmp_path / "store")
    append(store, schema.PRODUCTS, [product(1, active=False)])
    assert main(config(store, tmp_path / "out", vectors=True)).upserts == 0
