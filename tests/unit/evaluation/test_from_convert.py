"""From the files of a set to its figures: what `convert` writes is what the protocols read. The jobs work in this process."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import w2w
from tests.unit.nights.nights import without_ray
from w2w.wardrobe.shop import write_shop

ENCODER = {"name": "tests.unit.evaluation.encoder:colours"}
COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 20)]


def picture(colour: tuple[int, int, int], shift: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), np.clip(np.add(colour, shift), 0, 255), np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def convert(monkeypatch, tmp_path):
    without_ray(monkeypatch)
    store = str(tmp_path / "store")

    def run(kind: str, path: Path, **more) -> str:
        w2w.convert(store=store, set={"format": kind, "path": str(path), **more}, pool={"workers": 1})
        return store

    return run


def test_lookbench(convert, tmp_path):
    """Every query's nearest is of its category, and of one of both the main attribute is another."""

    def part(name: str, rows: list[tuple[int, str, str]]) -> None:
        pictures = [{"bytes": picture(COLOURS[c], 3 * n), "path": None} for n, (c, _, _) in enumerate(rows)]
        texts = {"category": [r[1] for r in rows], "main_attribute": [r[2] for r in rows], "item_ID": [str(r[0]) for r in rows]}
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": pa.array(pictures)} | texts), tmp_path / "set" / name, row_group_size=2)

    part("street/query.parquet", [(0, "Top", "Red"), (1, "Skirt", "Green")])
    part("street/gallery.parquet", [(0, "top", "red"), (1, "skirt", "striped"), (2, "skirt", "green")])
    part("noise/gallery.parquet", [(3, "noise", "noise")])
    found = w2w.evaluate(store=convert("lookbench", tmp_path / "set"), protocol="lookbench", encoder=ENCODER)
    values = {name: figure.value for name, figure in found.figures.items()}
    assert (found.queries, found.gallery, found.counts.read) == (2, 4, 2)
    assert (values["fine recall@1"], values["coarse recall@1"]) == (0.5, 1)
    assert values["fine nDCG@5"] > 0.5
    page = Path(found.evaluation).read_text()
    assert "The 1 worst-answered queries" in page
    assert "first hit at rank" in page


def test_pairs_of_a_list_are_trained_on_and_measured_as_the_stores_own(convert, tmp_path):
    lines = ["anchor,positive,category,split"]
    for n, colour in enumerate(COLOURS):
        (tmp_path / f"a{n}.jpg").write_bytes(picture(colour, 8))
        (tmp_path / f"p{n}.jpg").write_bytes(picture(colour))
        lines.append(f"a{n}.jpg,p{n}.jpg,top,test")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    store = convert("pairs", tmp_path / "list.csv")
    found = w2w.evaluate(store=store, protocol="own", source="pairs", encoder=ENCODER)
    assert (found.queries, found.gallery, found.figures["recall@1"].value) == (4, 4, 1)
    with pytest.raises(w2w.UsageError, match="are the same: there is nothing to compare"):
        w2w.compare(store=store, a=ENCODER["name"], b=ENCODER["name"], source="pairs")
    dry = w2w.evaluate(store=store, protocol="own", source="pairs", encoder=ENCODER, dry_run=True)
    assert dry.pending == 8  # pictures that would be embedded: nothing of them was kept
    with pytest.raises(w2w.UsageError, match=r"4 of 4 pictures of the queries have no vector of .*w2w embed --of=garments"):
        w2w.evaluate(store=store, protocol="own", source="pairs", encoder=ENCODER, compute=3, dry_run=True)


def test_the_wardrobe(convert, tmp_path):
    write_shop(tmp_path / "shop", 1, 60, 6, size_px=64)
    store = convert("wardrobe", tmp_path / "shop")
    found = w2w.evaluate(store=store, protocol="wardrobe", encoder=ENCODER)
    assert found.gallery == 60
    assert found.queries > 10
    assert found.figures["recall@1"].value <= found.figures["recall@20"].value == pytest.approx(1, abs=0.3)
    assert "✓" in Path(found.evaluation).read_text() or "&#10003;" in Path(found.evaluation).read_text()


def test_k_fashion_has_outfits_of_crops(convert, tmp_path):
    from tests.unit.mining.test_more_sets import k_fashion, rectangle
    from w2w import schema
    from w2w.table import delta

    for n in (1, 2):
        k_fashion(tmp_path / f"set/{n}.json", {"상의": [rectangle(1)], "하의": [rectangle(n + 3)]}, [{"스타일": "스트리트"}])
        (tmp_path / f"set/{n}.jpg").write_bytes(picture(COLOURS[n]))
    store = convert("k-fashion", tmp_path / "set")
    outfits = delta.read(store, schema.OUTFITS, [schema.ITEMS]).to_pylist()
    pictures = set(delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).column(0).to_pylist())
    assert [[i["slot"] for i in o["items"]] for o in outfits] == [["bottom", "top"]] * 2
    assert all(i["item_id"] in pictures for o in outfits for i in o["items"])
    products = delta.read(store, schema.PRODUCTS, [schema.ATTRIBUTES]).column(0).to_pylist()
    assert {dict(p)["style"] for p in products} == {"스트리트"}
    assert delta.read(store, schema.POSTS, [schema.POST_ID]).num_rows == 2
