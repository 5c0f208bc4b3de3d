"""Pairs in lists and folders, K-Fashion, LookBench, the wardrobe: read back to the exact records, hostile ones refused."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2w.errors import Reject, UsageError
from w2w.ingest import cells
from w2w.ingest.images import load_image
from w2w.mining.sets import SetConfig, open_set
from w2w.mining.sets import rows as of
from w2w.mining.sets.records import Anchor, Item, Outfit, Photo, PublicSet, Shop
from w2w.wardrobe.shop import write_shop


def opened(path: Path, kind: str, **options):
    return open_set(SetConfig(kind, str(path), **options))


def read_all(public: PublicSet) -> list:
    return [*public.shops(), *public.photos()]


def listed(folder: Path, *lines: str) -> Path:
    file = folder / "pairs.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_list_of_triplets(tmp_path):
    file = listed(
        tmp_path,
        "street,shop,other,category,product,split",
        "a/1.jpg,p/1.jpg,p/9.jpg,top,shirt,train",
        '"a/1.jpg","p/2.jpg",,top,shirt,train',
        "a/2.jpg,p/3.jpg,p/1.jpg,shoes,boot,test",
    )
    columns = {"anchor": "street", "positive": "shop", "negative": "other"}

    def shop(name: str, product: str, category: str, split: str) -> Shop:
        return Shop(name, product, str(tmp_path / name), category, category, split)

    for path in (file, tmp_path):
        found = opened(path, "pairs", columns=columns)
        assert list(found.shops()) == [
            shop("p/1.jpg", "shirt", "top", "train"),
            shop("p/2.jpg", "shirt", "top", "train"),
            shop("p/3.jpg", "boot", "shoes", "test"),
            shop("p/9.jpg", "p/9.jpg", "top", "train"),  # a negative that is nobody's positive
        ]
        assert list(found.photos()) == [
            Photo(
                "a/1.jpg", str(tmp_path / "a/1.jpg"), "train", (Anchor("shirt", ("p/1.jpg", "p/2.jpg"), "top", "top", None),)
            ),
            Photo("a/2.jpg", str(tmp_path / "a/2.jpg"), "test", (Anchor("boot", ("p/3.jpg",), "shoes", "shoes", None),)),
        ]


def test_a_plain_list_needs_a_class_and_draws_splits_that_anchors_do_not_cross(tmp_path):
    lines = ["anchor,positive", *(f"a{i}.jpg,p{i}.jpg" for i in range(40)), "a0.jpg,p1.jpg", "a1.jpg,p2.jpg"]
    listed(tmp_path, *lines)
    with pytest.raises(UsageError, match=r"pairs\.csv, line 2: no category: name one by set\.category: bag, bottom"):
        list(opened(tmp_path, "pairs").shops())
    found = opened(tmp_path, "pairs", category="outer", val_share=0.3, test_share=0.3)
    split_of = {s.product: s.split for s in found.shops()}
    assert split_of["p0.jpg"] == split_of["p1.jpg"] == split_of["p2.jpg"]
    assert min(Counter(split_of.values()).values()) > 3
    assert {(p.name, p.split) for p in found.photos()} == {(f"a{i}.jpg", split_of[f"p{i}.jpg"]) for i in range(40)}
    assert len(next(found.photos()).anchors) == 2


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["anchor,positive,category", "a.jpg,,top"], r"line 2: no positive"),
        (["anchor,positive,category", "a.jpg,p.jpg"], r"line 2: 2 values for 3 columns"),
        (["anchor,positive,category", "a.jpg,p.jpg,kilt"], r"line 2: category 'kilt' is not one of bag"),
        (["anchor,category", "a.jpg,top"], r"line 1: no column 'positive' for set\.columns\.positive, only anchor, category"),
        (["anchor,anchor,positive", "a,b,c"], r"line 1: two columns 'anchor'"),
        (
            ["anchor,positive,category", "a.jpg,../../etc/passwd,top"],
            r"line 2: positive: '\.\./\.\./etc/passwd' is not a file in",
        ),
        (["anchor,positive,category", "/etc/passwd,p.jpg,top"], r"line 2: anchor: '/etc/passwd' is not a file in"),
        (["anchor,positive,category,split", "a.jpg,p.jpg,top,dev"], r"line 2: split 'dev' is not one of train, val, test"),
        (["anchor,positive,category", '"a.jpg,p.jpg,top'], r"line \d: not valid CSV"),
        (["anchor,positive,category", "a\0.jpg,p.jpg,top"], r"line 2: it holds a null character"),
        (["anchor,positive,category", "a.jpg,p.jpg,top", "x" * 5000 + ",p.jpg,top"], r"line 3: a value is too long"),
        (["anchor,positive,category", "x" * 200_000 + ",p.jpg,top"], r"line 2: not valid CSV: field larger"),
        (
            ["anchor,positive,category,product", "a.jpg,p.jpg,top,1", "b.jpg,p.jpg,top,2"],
            r"line 3: 'p\.jpg' is product '2', and on .*line 2 '1'",
        ),
        (
            ["anchor,positive,category,product,split", "a.jpg,p.jpg,top,1,train", "b.jpg,q.jpg,top,1,test"],
            r"line 3: '1' is of split 'test', and on .*line 2 of 'train'",
        ),
        (
            ["anchor,positive,category,split", "a.jpg,p.jpg,top,train", "a.jpg,q.jpg,top,test"],
            r"line 2: 'a\.jpg' shows products of the splits test and train",
        ),
        ([""], r"line 1: no column 'anchor'"),
        (["anchor,positive,category"], r"no pairs\.csv there, no folders anchor and positive"),
    ],
)
def test_a_hostile_list_is_refused_with_its_line(tmp_path, lines, sentence):
    listed(tmp_path, *lines)
    with pytest.raises(UsageError, match=sentence):
        read_all(opened(tmp_path, "pairs"))


def test_options_of_pairs(tmp_path):
    listed(tmp_path, "anchor,positive", "a.jpg,p.jpg")
    for options, sentence in (
        ({"columns": {"image": "x"}}, r"set\.columns: 'image' is not one of anchor, positive"),
        ({"columns": {"negative": "x"}}, r"line 1: no column 'x' for set\.columns\.negative"),
        ({"category": "kilt"}, r"set\.category=kilt: must be one of bag"),
    ):
        with pytest.raises(UsageError, match=sentence):
            list(opened(tmp_path, "pairs", **options).shops())
    with pytest.raises(UsageError, match=r"set\.category: is of set\.format=pairs"):
        SetConfig("lookbook", str(tmp_path), category="top")


def test_pairs_in_folders(tmp_path):
    for name in ("anchor/x/1.jpg", "positive/x/1.PNG", "negative/x/1.gif", "anchor/2.jpg", "positive/2.TIF"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = opened(tmp_path, "pairs", category="bag")
    assert {s.name for s in found.shops()} == {"positive/x/1.PNG", "positive/2.TIF", "negative/x/1.gif"}
    assert {p.name: p.anchors[0].shops for p in found.photos()} == {
        "anchor/x/1.jpg": ("positive/x/1.PNG",),
        "anchor/2.jpg": ("positive/2.TIF",),
    }
    (tmp_path / "anchor/3.jpg").touch()
    with pytest.raises(UsageError, match=r"anchor/3\.jpg: there is no file of that name in .*positive"):
        list(opened(tmp_path, "pairs", category="bag").shops())


def test_a_folder_a_pair_has_its_class_from_the_folder_above(tmp_path):
    for name in ("top/17/anchor.jpg", "top/17/positive.jpg", "bag/18/anchor.bmp", "bag/18/positive.jpg", "bag/18/negative.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = opened(tmp_path, "pairs")
    assert {(s.name, s.category) for s in found.shops()} == {
        ("top/17/positive.jpg", "top"),
        ("bag/18/positive.jpg", "bag"),
        ("bag/18/negative.tif", "bag"),
    }
    (tmp_path / "bag/18/positive.tif").touch()
    with pytest.raises(UsageError, match=r"positive\.tif: bag/18/positive\.jpg has the same name"):
        list(opened(tmp_path, "pairs").shops())
    (tmp_path / "bag/18/positive.tif").unlink()
    (tmp_path / "bag/18/positive.jpg").unlink()
    with pytest.raises(UsageError, match=r"bag/18: no positive\.jpg beside bag/18/anchor\.bmp, bag/18/negative\.tif"):
        list(opened(tmp_path, "pairs").shops())


def k_fashion(file: Path, rectangles: dict, styles: list | None = None) -> None:
    labels = {"라벨링": {"스타일": styles}} if styles is not None else {}
    info = {"데이터셋 상세설명": {"렉트좌표": rectangles} | labels}
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {"이미지 정보": {"이미지 파일명": f"{file.stem}.jpg"}, "데이터셋 정보": info}
    file.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8-sig")


def rectangle(x: float) -> dict:
    return {"X좌표": x, "Y좌표": 2, "가로": 20, "세로": 30}


def test_k_fashion(tmp_path):
    k_fashion(
        tmp_path / "a/1.json",
        {"상의": [rectangle(1), rectangle(5)], "하의": [rectangle(3)], "아우터": [{}]},
        [{"스타일": "스트리트"}, {}],
    )
    k_fashion(tmp_path / "a/2.json", {"원피스": [rectangle(7)]})
    found = opened(tmp_path, "k-fashion", val_share=0, test_share=1)
    uri, style = str(tmp_path / "a/1.jpg"), (("style", "스트리트"),)
    top, other = (
        Shop(f"a/1.jpg/{n}", None, uri, "상의", "top", "test", (x, 2, x + 20, 32), notes=style)
        for n, x in (("top", 1), ("top#2", 5))
    )
    bottom = Shop("a/1.jpg/bottom", None, uri, "하의", "bottom", "test", (3, 2, 23, 32), notes=style)
    dress = Shop("a/2.jpg/dress", None, str(tmp_path / "a/2.jpg"), "원피스", "dress", "test", (7, 2, 27, 32))
    assert list(found.shops()) == [top, other, bottom, dress]
    assert list(found.photos()) == [Photo("a/1.jpg", uri, "test", ()), Photo("a/2.jpg", str(tmp_path / "a/2.jpg"), "test", ())]
    items = (Item("a/1.jpg/bottom", "bottom", "bottom"), Item("a/1.jpg/top", "top", "top"))
    assert list(found.outfits()) == [Outfit("a/1.jpg", items, "test")]  # one garment is no outfit
    known = of.Known({f"k-fashion/{s.name}": f"i{i}" for i, s in enumerate(found.shops())}, {}, set())
    (row,) = of.outfits(found.outfits(), known, "k-fashion", "k-fashion")
    assert [(i["slot"], i["item_id"]) for i in row["items"]] == [("bottom", "i2"), ("top", "i0")]
    assert found.digest() != opened(tmp_path, "k-fashion", val_share=1, test_share=0).digest()


@pytest.mark.parametrize(
    ("rectangles", "styles", "sentence"),
    [
        ({"치마": [{}]}, None, r"렉트좌표: '치마' is not K-Fashion's"),
        ({"상의": [{"X좌표": 1}]}, None, r"상의\[0\]: field 'Y좌표' is missing"),
        ({"상의": [rectangle(float("inf"))]}, None, r"상의\[0\] is \[inf"),
        ({}, ["스트리트"], r"스타일\[0\]: expected an object"),
        ({}, [{"스타일": 3}], r"field '스타일' is 3, not str"),
    ],
)
def test_hostile_k_fashion_is_refused_with_its_file(tmp_path, rectangles, styles, sentence):
    k_fashion(tmp_path / "1.json", rectangles, styles)
    with pytest.raises(UsageError, match=rf"1\.json: .*{sentence}|1\.json: {sentence}"):
        list(opened(tmp_path, "k-fashion").shops())


def lookbench(folder: Path, pictures: int = 3) -> None:
    def part(name: str, rows: list[tuple[str, str, str]], at: int) -> None:
        table = pa.table(
            {
                "image": pa.array([{"bytes": bytes([at + i]) * 4, "path": None} for i in range(len(rows))]),
                **{n: [r[k] for r in rows] for k, n in enumerate(("category", "main_attribute", "item_ID"))},
            }
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name, row_group_size=2)

    part("studio/query.parquet", [("Top ", "Striped", "7")], 10)
    part("studio/gallery-00000-of-00001.parquet", [("top", "striped", "7"), ("Dress", "x", "8"), ("top", "y", "9")], 20)
    part("noise/gallery.parquet", [("noise", "noise", "0")], 30)


def test_lookbench(tmp_path):
    lookbench(tmp_path)
    found = opened(tmp_path, "lookbench", classes={"Dress": "dress"})
    shops = {s.name: s for s in found.shops()}
    assert len(shops) == 5
    asked = shops["studio/query/0"]
    assert (asked.label, asked.product, asked.category, asked.split) == ("top", "studio/7", None, "test")
    assert dict(asked.notes) == {"subset": "studio", "partition": "query", "main_attribute": "striped"}
    assert shops["studio/gallery-00000-of-00001/1"].category == "dress"
    assert "subset" not in dict(shops["noise/gallery/0"].notes)
    read = {name: load_image(s.image_uri, max_bytes=99) for name, s in shops.items()}
    assert read["studio/query/0"] == b"\x0a" * 4
    assert [read[f"studio/gallery-00000-of-00001/{i}"] for i in range(3)] == [bytes([20 + i]) * 4 for i in range(3)]
    assert list(found.photos()) == []


def test_a_cell_that_is_none_is_a_reject_and_a_folder_without_cells_is_refused(tmp_path):
    lookbench(tmp_path)
    file = str(tmp_path / "studio/query.parquet")
    for uri, code, most in ((f"{file}#1", "not_found", 99), (f"{file}#0", "too_many_bytes", 3)):
        with pytest.raises(Reject) as e:
            load_image(uri, max_bytes=most)
        assert e.value.code.value == code
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(pa.table({"image": ["text"]}), tmp_path / "text.parquet")
    for name, code in (("none", "empty"), ("bad", "corrupt"), ("text", "not_an_image")):
        with pytest.raises(Reject) as e:
            load_image(f"{tmp_path / name}.parquet#0", max_bytes=99)
        assert e.value.code.value == code
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no SUBSET/query\.parquet"):
        opened(tmp_path / "empty", "lookbench")
    pq.write_table(pa.table({"category": ["x"]}), tmp_path / "studio/query.parquet")
    with pytest.raises(UsageError, match=r"query\.parquet: no column"):
        opened(tmp_path, "lookbench")


def test_a_row_group_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    lookbench(tmp_path)
    monkeypatch.setattr(cells, "_MOST_BYTES", 10)
    with pytest.raises(UsageError, match=r"row group 0 has .* MB of pictures, more than 0: rewrite it with row_group_size"):
        opened(tmp_path, "lookbench")


def test_wardrobe(tmp_path):
    write_shop(tmp_path, 1, 40, 3, size_px=48)
    found = opened(tmp_path, "wardrobe")
    shops = {s.name: s for s in found.shops()}
    assert len(shops) == 40
    assert {s.split for s in shops.values()} == {"test"}
    posts = [json.loads(line) for line in (tmp_path / "posts.jsonl").read_text().splitlines()]
    seen = [[i["product_id"] for i in post["items"] if i["visible_fraction"] >= 0.35] for post in posts]
    assert [[a.product for a in p.anchors] for p in found.photos()] == seen
    assert all(shops[a.product].category == a.category and a.shops == (a.product,) for p in found.photos() for a in p.anchors)
    posts[1]["items"][0]["product_id"] = "gone"
    (tmp_path / "posts.jsonl").write_text("\n".join(map(json.dumps, posts)))
    with pytest.raises(UsageError, match=r"posts\.jsonl, line 2: items\[0\]: product 'gone' is not in .*products\.csv"):
        list(found.photos())
    (tmp_path / "products.csv").write_text("product_id,category,image\na,kilt,x.jpg\n")
    with pytest.raises(UsageError, match=r"products\.csv, line 2: category 'kilt' is not one of"):
        list(opened(tmp_path, "wardrobe").shops())
