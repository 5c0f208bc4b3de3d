"""What happens when a file of a store is gone, cut off, emptied or overwritten: a sentence that names it, or the right rows."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.table.test_sink import IMAGES, PRODUCTS, images, lineage, listed, product
from w2w import schema
from w2w.engine.source import pending_rows
from w2w.errors import JobFailed, StorageFailed, UsageError
from w2w.table import delta, inventory, maintain, pending, snapshot
from w2w.table.current import current_products
from w2w.table.parts import Output
from w2w.table.sink import append_rows

TABLES = (schema.PRODUCTS, schema.IMAGES, schema.REJECTS)


def write_store(store: str) -> None:
    rejected = {f.name: "x" for f in schema.REJECTS.schema} | {"rejected_at": 0, "code": "corrupt"}
    for i in range(2):
        append_rows(store, PRODUCTS, listed([product("a", f"{i}", i), product(f"b{i}", "x", i)]), lineage(f"{i}", f"run{i}"))
        append_rows(store, IMAGES, images([i, i + 1]), lineage(f"{i}", f"run{i}"))
        rows = pa.Table.from_pylist([rejected | {"key": f"{i}"}], schema=schema.REJECTS.schema)
        append_rows(store, Output(schema.REJECTS), rows, lineage(f"{i}", f"run{i}"))


def everything(store: str) -> list:
    return [sorted(map(str, delta.read(store, t, t.schema.names).to_pylist())) for t in TABLES]


def pending_of(store: str) -> list:
    done = [pending.table_keys(store, schema.PRODUCTS, schema.PRODUCT_ID), pending.rejected_keys(store, "x", "x")]
    work = pending_rows(store, schema.IMAGES, [schema.IMAGE_ID, schema.BYTES], done, None, 10)
    system_root = delta.storage.filesystem(work.root)
    items = [i for item in work.items for i in item.to_pylist()]
    return sorted(str(b.to_pylist()) for i in items for b in pending.read_item(*system_root, i, work.schema.names, 5))


def compacted(store: str) -> list:
    for t in TABLES:
        maintain.compact(store, t)
    return everything(store)


def written(store: str) -> list:
    append_rows(store, PRODUCTS, listed([product("new", "x", 9)]), lineage("new", "new"))
    append_rows(store, IMAGES, images([2, 9]), lineage("new", "new"))
    return everything(store)


READ: dict[str, Callable[[str], object]] = {
    "everything": everything,
    "current": lambda store: current_products(store, ["product_id", "title"]).to_pylist(),
    "pending": pending_of,
    "overview": lambda store: [inventory.held(t, delta.open_table(store, t)) for t in TABLES],
    "history": lambda store: [inventory.history(delta.open_table(store, t)) for t in TABLES],
    "rejects": lambda store: inventory.rejects(store, None, 3),
    "snapshot": lambda store: str(snapshot.current(store, schema.IMAGES)),
    "vacuum": lambda store: [maintain.vacuum(store, t, 168, True) for t in TABLES],
}
WRITE: dict[str, Callable[[str], object]] = {"compact": compacted, "write": written}

FAULTS: dict[str, Callable[[Path], None]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a page": lambda path: path.write_bytes(path.read_bytes()[:40] + b"\x55" * 20 + path.read_bytes()[60:]),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "store"
    write_store(str(folder))
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_named_or_does_no_harm(store, tmp_path, fault):
    copy, right = tmp_path / "store", {}
    for name, do in (READ | WRITE).items():
        shutil.copytree(store, copy)
        right[name] = do(str(copy))
        shutil.rmtree(copy)
    refused, wrong = 0, []
    for path in sorted(p.relative_to(store) for p in store.rglob("*") if p.is_file()):
        if fault == "gone" and path == max(p.relative_to(store) for p in (store / path).parent.iterdir()):
            continue  # without its last entry a log is that of an earlier hour
        shutil.copytree(store, copy)
        for name, do in (READ | WRITE).items():
            if name in WRITE:
                shutil.rmtree(copy)
                shutil.copytree(store, copy)
            FAULTS[fault](copy / path) if name in WRITE or name == "everything" else None
            try:
                got = do(str(copy))
            except (JobFailed, UsageError) as e:
                refused += 1
                if len(str(e).splitlines()) != 1 or path.parts[0] not in str(e):
                    wrong.append((str(path), name, str(e)))
            else:
                if got != right[name]:
                    wrong.append((str(path), name, "other rows"))
        shutil.rmtree(copy)
    assert wrong == []
    assert refused > 20


@pytest.mark.parametrize("name", ["pct%20x", "a%2Fb", "hash#x", "quest?x", "back\\slash", "new\nline", "tab\tx"])
def test_a_store_that_delta_would_look_for_elsewhere(tmp_path, name):
    with pytest.raises(UsageError, match=r"^--store=.*: Delta Lake misreads a name with a backslash"):
        append_rows(str(tmp_path / name), PRODUCTS, listed([product("a", "x", 1)]), lineage())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sp ace", "ünï 上", "a&b=c", "50%", "100%ig", "ast*[x]", 'q"uote', "co:lon"])
def test_stores_of_any_other_name(tmp_path, name):
    store = str(tmp_path / name)
    append_rows(store, IMAGES, images([1, 2]), lineage())
    append_rows(store, IMAGES, images([2, 3]), lineage("v2", "other"))
    assert maintain.compact(store, schema.IMAGES) == maintain.Compacted(0, 2, 1)
    assert delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).num_rows == 3
    assert len(delta.history(delta.open_table(store, schema.IMAGES))) > 2
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_a_sentence(tmp_path):
    """As where every file is limited in size."""
    store = str(tmp_path)
    append_rows(store, PRODUCTS, listed([product("a", "x", 1)]), lineage())
    noise = images([1]).set_column(1, "bytes", pa.array([np.random.default_rng(0).bytes(1 << 20)]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))
    try:
        with pytest.raises(StorageFailed, match=r"^cannot write .*images/run-.*: .*(File too large|Error writing)"):
            append_rows(store, IMAGES, noise, lineage())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).num_rows == 0
    append_rows(store, IMAGES, noise, lineage())
    assert delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).num_rows == 1


def test_an_entry_that_is_being_written_by_another_process_is_no_damage(tmp_path):
    write_store(str(tmp_path))
    before = everything(str(tmp_path))
    for name in ("_commit_0b1c.json.tmp", "00000000000000000009.json#1"):  # as delta-rs and its object store name them
        (tmp_path / schema.IMAGES.name / "_delta_log" / name).touch()
    assert everything(str(tmp_path)) == before
