"""A user's mistake: one clear sentence, exit code 2 (or 1), no traceback, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.cluster.shops import write_shop
from w2w import schema
from w2w.cli.main import main
from w2w.engine import cluster
from w2w.errors import JobFailed
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """The commands here end before they start Ray, or start one of their own."""


def w2w(*argv: object, **environment: str) -> tuple[int, str]:
    """Exit code, and what was printed on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "w2w", *map(str, argv)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def here(monkeypatch, capfd):
    """The same in this process, for commands that end before they start Ray: one of its own takes seconds."""

    def run(*argv: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdout", sys.stdout)  # which the command replaces
        monkeypatch.setattr(sys, "argv", ["w2w", *map(str, argv)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        assert "Traceback" not in said.err + said.out, said.err
        return end.value.code, said.err

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A good feed of three products, and a store with tables that no index was built from."""
    folder = tmp_path_factory.mktemp("misuse")
    write_shop(folder / "shop", 3)
    (folder / "empty.csv").write_text("product_id,image\n")
    (folder / "bad.yaml").write_text("store: [x\n")
    (folder / "file").write_text("in the way")
    lineage = Lineage("x", "x", "x", "x", {}, {}, "x")
    store = str(folder / "tables")
    row = {f.name: "x" for f in schema.PRODUCTS.schema if f.type == pa.string()}
    row |= {"price": 1.0, "attributes": [], "active": True, "fetched_at": 0, "image_id": "i0"}
    append_rows(store, Output(schema.PRODUCTS), pa.Table.from_pylist([row], schema=schema.PRODUCTS.schema), lineage)
    from w2w.models.config import EncoderConfig
    from w2w.models.encoder import model_version

    vector = pa.ListArray.from_arrays(pa.array([0, 4], pa.int32()), pa.array(np.full(4, np.nan, np.float32)))
    bad = pa.table([["i0"], ["image"], [model_version(EncoderConfig())], vector], schema=schema.EMBEDDINGS.schema)
    append_rows(store, Output(schema.EMBEDDINGS), bad, lineage)
    wrong = pa.table({"image_id": ["a"], "bytes": ["text, not bytes"]})
    from deltalake import write_deltalake

    write_deltalake(str(folder / "wrong" / "images"), wrong)
    return folder


CASES = {
    "missing feed": (["ingest", "--store={p}/new", "--feed.uri={p}/no.csv"], 2, "feed.uri={p}/no.csv: no such file or folder"),
    "missing column": (
        ["ingest", "--store={p}/new", "--feed.uri={p}/shop/products.csv", "--feed.columns.image=imge"],
        2,
        "no column 'imge' for feed.columns.image; did you mean 'image'?",
    ),
    "empty feed": (["ingest", "--store={p}/new", "--feed.uri={p}/empty.csv"], 1, "the feed has no rows"),
    "unknown option": (
        ["ingest", "--store={p}/new", "--fed.uri=x"],
        2,
        "option --fed.uri does not exist. Did you mean 'feed.uri'?",
    ),
    "unknown job": (["ingets"], 2, "there is no job 'ingets'. Did you mean 'ingest'?"),
    "bad YAML": (["ingest", "--config={p}/bad.yaml"], 2, "not valid YAML"),
    "unwritable store": (
        ["ingest", "--store={p}/file/x", "--feed.uri={p}/shop/products.csv"],
        2,
        "--store={p}/file/x: cannot write there",
    ),
    "wrong dtype": (
        ["embed", "--store={p}/new", "--encoder.store_dtype=int8"],
        2,
        "encoder.store_dtype=int8: must be one of float32, float16",
    ),
    "wrong table": (["embed", "--store={p}/wrong"], 2, "column 'bytes' is string, and w2w needs binary"),
    "no tables": (["embed", "--store={p}/new"], 2, "run 'w2w ingest' first"),
    "k of zero": (
        ["search", "--store={p}/tables", "--feed.uri={p}/shop/products.csv", "--search.k=0"],
        2,
        "search.k=0: must be at least 1",
    ),
    "no index": (["search", "--store={p}/tables", "--feed.uri={p}/shop/products.csv"], 2, "no index is published there"),
    "another model": (
        ["index", "--store={p}/tables", "--encoder.store_dtype=float16"],
        2,
        "run 'w2w embed' with the same --encoder",
    ),
    "NaN vectors": (["index", "--store={p}/tables", "--ray.num_cpus=1"], 2, "NaN"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence(place, here, name):
    argv, code, sentence = CASES[name]
    run = w2w if name in ("unknown job", "NaN vectors") else here
    got, said = run(*(a.format(p=place) for a in argv))
    lines = [line for line in said.splitlines() if line.startswith("w2w: ")]
    assert (got, len(lines)) == (code, 1), said
    assert sentence.format(p=place) in lines[0]
    assert not (place / "new").exists()
    assert not (place / "tables" / "index").exists() or not list((place / "tables" / "index").rglob("CURRENT"))
    assert not (place / "tables" / "_work").exists() or not list((place / "tables" / "_work").rglob("*.parquet"))


def test_bad_s3_credentials(place, s3_with_checks):
    environment, bucket = s3_with_checks
    wrong = environment | {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}
    code, said = w2w("ingest", f"--store=s3://{bucket}/x", f"--feed.uri={place}/shop/products.csv", **wrong)
    assert code == 2, said
    assert f"--store=s3://{bucket}/x: cannot write there" in said


def test_a_machine_that_is_too_busy_for_ray_is_a_sentence(monkeypatch):
    asked = []

    def init(*args, **options):
        asked.append(args)
        raise Exception("The current node timed out during startup. This could happen because ...")

    for name, instead in (("is_initialized", lambda: False), ("init", init), ("shutdown", lambda: None)):
        monkeypatch.setattr(cluster.ray, name, instead)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(JobFailed, match="did not start in 3 attempts"):
        cluster.connect(cluster.RayConfig())
    assert len(asked) == 3
