import numpy as np
import pyarrow as pa
import pytest

from tests.unit.table.test_sink import lineage
from w2w import schema
from w2w.errors import UsageError
from w2w.stage import Counts
from w2w.table import delta, snapshot
from w2w.table.parts import Output, write_part
from w2w.training.outfits.flow import read_blanks, read_outfits

ITEMS = {
    f"{slot}{i}": np.eye(6, dtype=np.float32)[i] + j for j, slot in enumerate(("top", "bottom", "shoes")) for i in range(3)
}


def item(name: str, slot: str | None = None) -> dict:
    return {"slot": slot or name.rstrip("0123456789"), "item_id": name, "image_id": name, "category": "x"}


def write(store: str, table: schema.Table, rows: list[dict], source: str = schema.OWN) -> None:
    receipts = write_part(store, Output(table), pa.Table.from_pylist(rows, schema=table.schema), "run")
    receipts[0] |= {"counts": Counts(len(rows), len(rows), {}).to_json()}
    snapshot.replace(store, table, receipts, lineage("1"), source)


def row(outfit_id: str, names: list[str], split: str = "train", of: str | None = None) -> dict:
    found = {"outfit_id": outfit_id, "items": [item(n) for n in names], "modified_of": of, "replaced": []}
    return found | {"split": split, "source": schema.OWN}


@pytest.fixture
def store(tmp_path) -> str:
    where = str(tmp_path)
    write(
        where,
        schema.OUTFITS,
        [
            row("m1", ["top1", "bottom2", "shoes0"], of="w1"),  # before the one that it was made of
            row("w1", ["shoes0", "top0", "bottom0"]),  # in another order
            row("w2", ["top1", "bottom1"]),
            row("w3", ["top2", "bottom2", "shoes2"], "test"),
            row("w4", ["top0", "bottom0", "shoes9"]),  # nobody embedded shoes9
            row("m4", ["top0", "bottom1", "shoes1"], of="w4"),
        ],
    )
    vectors = [
        {"owner_id": n, "owner_kind": "slot", "model_version": version, "vector": v.tolist()}
        for version, scale in (("new", 1), ("old", -1))
        for n, v in ((n, v * scale) for n, v in ITEMS.items())
    ]
    delta.create_table(where, schema.EMBEDDINGS)
    for version in ("new", "old"):
        mine = [v for v in vectors if v["model_version"] == version]
        write_embeddings(where, mine)
    return where


def write_embeddings(store: str, rows: list[dict], mode: str = "append") -> None:
    from deltalake import write_deltalake

    table = pa.Table.from_pylist(rows, schema=schema.EMBEDDINGS.schema)
    write_deltalake(delta.uri(store, schema.EMBEDDINGS), table, mode=mode)


def test_outfits_come_as_arrays_with_their_vectors(store):
    splits, left_out = read_outfits(store, "new")
    assert left_out == 1
    assert set(splits) == {"test", "train"}
    train, test = splits["train"], splits["test"]
    assert train.slots == ("top", "bottom", "shoes")
    assert len(test) == 1
    assert len(train) == 3  # w4 went, and what was made of it with it
    shown = {
        tuple(slots): [v.tolist() for v in train.vectors_ND[items]] for items, slots in zip(train.items_OS, train.slots_OS)
    }
    assert shown[0, 1, 2] == [ITEMS[n].tolist() for n in ("top0", "bottom0", "shoes0")]
    assert train.slots_OS.tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, -1]]
    assert train.items_OS[2, 2] == -1
    (modified,) = train.modified
    assert train.modified_of_O[modified] == 1
    assert train.worn.tolist() == [1, 2]
    old, _ = read_outfits(store, "old")
    assert (old["train"].vectors(old["train"].items_OS[:1]) == -train.vectors(train.items_OS[:1])).all()


def test_what_is_missing_is_said(store, tmp_path):
    with pytest.raises(UsageError, match="w2w embed"):
        read_outfits(store, "newest")
    with pytest.raises(UsageError, match="source 'polyvore'"):
        read_outfits(store, "new", "polyvore")
    with pytest.raises(UsageError, match="the vectors of 10 items"):
        read_outfits(store, "new", most_bytes=100)
    with pytest.raises(UsageError, match="compose"):
        read_outfits(str(tmp_path / "empty"), "new")


def test_questions_come_as_outfits(store):
    def question(name: str, given: list[str], answers: list[str], right: int, kind: str = "fill_in_blank") -> dict:
        found = {"question_id": name, "kind": kind, "items": [item(n) for n in given], "answers": [item(n) for n in answers]}
        return found | {"right": right, "split": "test", "source": schema.OWN}

    write(
        store,
        schema.QUESTIONS,
        [
            question("a", ["top0", "shoes0"], ["bottom1", "bottom0"], 1),
            question("b", ["top1"], ["bottom2", "bottom1", "bottom0"], 0),
            question("c", ["top1"], ["shoes9", "shoes1"], 0),  # an item without a vector
            question("d", ["top1", "shoes1"], [], 1, "compatibility"),
        ],
    )
    test = read_outfits(store, "new")[0]["test"]
    more, asked = read_blanks(store, test, "new", schema.OWN, "test")
    assert asked.right_Q.tolist() == [1, 0]
    first = [
        {slot: tuple(more.vectors_ND[i]) for i, slot in zip(*a) if i >= 0} for a in zip(asked.items_QAS[0], asked.slots_QAS[0])
    ]
    expected = {0: tuple(ITEMS["top0"]), 2: tuple(ITEMS["shoes0"])}
    assert first == [expected | {1: tuple(ITEMS["bottom1"])}, expected | {1: tuple(ITEMS["bottom0"])}, {}]
    assert (asked.items_QAS[1, 2] >= 0).sum() == 2
    assert (more.vectors_ND[: len(test.vectors_ND)] == test.vectors_ND).all()
