"""Whatever the files of a feed, of an annotated set or of a public set hold: rows, rejects, or a sentence. Nothing else is
raised, and memory is bounded by what the files hold."""

import gzip
import io
import json
import random
import resource
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2w import schema
from w2w.errors import BadInput, Reject, UsageError, attempt
from w2w.garments.annotations import settle
from w2w.garments.formats import AnnotationsConfig, read_annotations
from w2w.garments.masks import to_rle
from w2w.garments.taxonomy import TaxonomyConfig
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.ingest.images import load_image
from w2w.ingest.stage import work_rows
from w2w.mining.sets import SetConfig, open_set
from w2w.mining.sets import rows as of

MASK = np.zeros((60, 40), bool)
MASK[10:30, 5:25] = True
RLE = to_rle(MASK)
UNCOMPRESSED = {"size": [60, 40], "counts": [310, 20, 40, 20, 2010]}
NAMES = ("top", "bottom", "shoes")


def text(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def coco(names: tuple[str, ...] = NAMES) -> dict[str, bytes]:
    shapes = [[[5, 10, 25, 10, 25, 30, 5, 30]], RLE, UNCOMPRESSED, [[1, 1, 9, 1, 9, 9], [20, 20, 30, 20, 30, 30]], None]
    records = [
        {
            "id": i,
            "image_id": 1 + i % 2,
            "category_id": i % len(names),
            "bbox": [5, 10, 20, 20],
            "iscrowd": 0,
            "segmentation": s,
        }
        for i, s in enumerate(shapes)
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 40} for i in (1, 2)]
    kinds = [{"id": i, "name": name, "supercategory": name} for i, name in enumerate(names)]
    return {"x.json": text({"images": images, "categories": kinds, "annotations": records})}


def deepfashion2() -> dict[str, bytes]:
    item = {"style": 1, "category_name": "short sleeve top", "category_id": 1, "bounding_box": [10, 10, 30, 50]}
    photo = {"source": "user", "pair_id": 1, "item1": item, "item2": item | {"style": 0}}
    return {f"train/annos/{i}.json": text(photo | {"source": source}) for i, source in ((1, "user"), (2, "shop"))}


def k_fashion() -> dict[str, bytes]:
    rectangles = {"상의": [{"X좌표": 1.5, "Y좌표": 2, "가로": 20, "세로": 30}], "하의": [{}], "아우터": [], "원피스": [{}]}
    record = {"이미지 정보": {"이미지 파일명": "1.jpg"}, "데이터셋 정보": {"데이터셋 상세설명": {"렉트좌표": rectangles}}}
    return {"a/1.json": text(record)}


YOLO = {
    "data.yaml": b"path: .\ntrain: train/images\nval: val/images\nnames: {0: top, 1: bottom}\n",
    "train/images/a.jpg": b"",
    "train/labels/a.txt": b"0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.2 0.1 0.2 0.3\n",
    "val/images/b.jpg": b"",
    "val/labels/b.txt": b"",
}
WARDROBE = {
    "posts.jsonl": text(
        {
            "post_id": "post-0",
            "image": "posts/0.jpg",
            "items": [
                {"product_id": "p-1", "category": "top", "box_xyxy": [5, 10, 25, 30], "visible_fraction": 0.9, "mask_rle": RLE}
            ],
        }
    )
}
ANNOTATIONS: dict[str, tuple[dict[str, bytes], str]] = {
    "coco": (coco(), "x.json"),
    "ccp": (coco(), "x.json"),
    "modanet": (coco(("top", "pants", "footwear")), "x.json"),
    "fashionpedia": (coco(("sweater", "pants", "shoe")), "x.json"),
    "deepfashion2": (deepfashion2(), ""),
    "k-fashion": (k_fashion(), ""),
    "yolo": (YOLO, ""),
    "wardrobe": (WARDROBE, ""),
}


def read_annotated(kind: str, path: Path) -> int:
    rows = read_annotations(AnnotationsConfig(str(path), kind, taxonomy=TaxonomyConfig()))
    for name, side in ((schema.WIDTH, 40), (schema.HEIGHT, 60)):
        rows = rows.append_column(name, pa.array([side] * rows.num_rows, pa.int32()))
    return settle(rows, stage_version="v").num_rows


def in_shop() -> dict[str, bytes]:
    names = [f"img/WOMEN/Dresses/id_00000002/0{i}_{i}_front.jpg" for i in (1, 2)] + ["img/MEN/Denim/id_00000003/01_1_front.jpg"]
    lines = [f"{name} {name.split('/')[3]} {status}" for name, status in zip(names, ("train", "query", "gallery"))]
    boxes = [f"{name} {kind} 1 010 010 200 200" for name, kind in zip(names, (3, 3, 2))]
    return {
        "Eval/list_eval_partition.txt": "\n".join(["3", "image_name item_id evaluation_status", *lines]).encode(),
        "Anno/list_bbox_inshop.txt": "\n".join(["3", "image_name clothes_type pose_type x_1 y_1 x_2 y_2", *boxes]).encode(),
        "Img/img/x.txt": b"",
    }


def consumer_to_shop() -> dict[str, bytes]:
    names = [f"img/DRESSES/Dress/id_00000001/{n}_01.jpg" for n in ("comsumer", "shop")]
    boxes = [f"{name} 3 1 010 010 200 200" for name in names]
    header = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    return {
        "Eval/list_eval_partition.txt": "\n".join(["1", header, f"{names[0]} {names[1]} id_1 train"]).encode(),
        "Anno/list_bbox_consumer2shop.txt": "\n".join(
            ["2", "image_name clothes_type source_type x_1 y_1 x_2 y_2", *boxes]
        ).encode(),
        "Img/img/x.txt": b"",
    }


def street2shop() -> dict[str, bytes]:
    pair = {"photo": 1, "product": 80, "bbox": {"left": 1, "top": 2, "width": 30, "height": 40}}
    return {
        "photos.txt": b"0000000001,http://x.test/1.jpg\n0000000002,http://x.test/2.jpg\n",
        "meta/json/retrieval_dresses.json": text([{"photo": 2, "product": 80}]),
        "meta/json/train_pairs_dresses.json": text([pair]),
        "meta/json/test_pairs_dresses.json": text([]),
    }


def polyvore() -> dict[str, bytes]:
    kinds = {"a": "tops", "b": "bottoms", "c": "shoes"}
    outfits = [{"set_id": s, "items": [{"item_id": i, "index": n} for n, i in enumerate("abc", 1)]} for s in ("10", "11")]
    blank = {"question": ["10_1", "10_3"], "blank_position": 2, "answers": ["10_2", "11_2"]}
    return {
        "polyvore_item_metadata.json": text({i: {"title": i, "url_name": i, "semantic_category": k} for i, k in kinds.items()}),
        "nondisjoint/train.json": text(outfits),
        "nondisjoint/valid.json": text([]),
        "nondisjoint/test.json": text([]),
        "nondisjoint/fill_in_blank_train.json": text([blank]),
        "nondisjoint/compatibility_train.txt": b"1 10_1 10_2\n0 10_1 11_3\n",
        "images/x.txt": b"",
    }


def lookbench() -> dict[str, bytes]:
    columns = {"image": pa.array([{"bytes": b"x", "path": None}] * 3), "category": ["top"] * 3}
    out = io.BytesIO()
    pq.write_table(pa.table(columns | {"main_attribute": ["a"] * 3, "item_ID": ["1"] * 3}), out, row_group_size=2)
    return {"studio/gallery.parquet": out.getvalue()}


SETS = {
    "lookbench": lookbench(),
    "pairs": {"pairs.csv": b'anchor,positive,negative,category,product,split\na.jpg,p.jpg,n.jpg,top,1,train\n"b",q,,bag,,\n'},
    "k-fashion": k_fashion(),
    "wardrobe": WARDROBE | {"products.csv": b"product_id,title,category,image\np-1,A,top,images/1.jpg\n"},
    "in-shop": in_shop(),
    "consumer-to-shop": consumer_to_shop(),
    "street2shop": street2shop(),
    "polyvore": polyvore(),
    "deepfashion2": deepfashion2(),
    "lookbook": {f"PID000001_CLEAN{i}_IID000000.jpg": b"" for i in (0, 1)},
}


def read_set(kind: str, path: Path) -> int:
    public = open_set(SetConfig(kind, str(path)))
    products = [row for t in of.shop_rows(public.shops(), "set", "v") for row in t.to_pylist()]
    posts = [row for t in of.photo_rows(public.photos(), "set", "v") for row in t.to_pylist()]
    images = {r[schema.PRODUCT_ID]: "image" for r in products}, {r[schema.POST_ID]: "image" for r in posts}
    known = of.Known(*images, set())
    made = (
        (schema.PAIRS, of.pairs(public.photos(), known, "set", "set", "v")),
        (schema.OUTFITS, of.outfits(public.outfits(), known, "set", "set")),
        (schema.QUESTIONS, of.questions(public.questions(), known, "set", "set")),
    )
    found = [batch for table, rows in made for batch in of.gathered(table, rows)]
    return len(products) + len(posts) + sum(rows.num_rows + len(bad) for rows, bad in found)


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in {
            "1.jpg": b"x" * 90,
            "1.json": b'{"title": "a"}',
            "2.png": b"y",
            "2.txt": b"b",
            "2.cls": b"7",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def parquet() -> bytes:
    out = io.BytesIO()
    kinds = pa.array(["x", "y"]).dictionary_encode()
    pq.write_table(pa.table({"product_id": ["1", "2"], "image": ["a", "b"], "price": [1.5, None], "kind": kinds}), out)
    return out.getvalue()


CSV = b'product_id,title,price,image\n1,"a ""b""\nc",1.5,a.jpg\n2,\xc3\xa9,,b.jpg\n'
JSONL = text({"product_id": "1", "image": "a.jpg", "price": 1.5, "tags": ["x", {"y": None}]}) + b'\n{"product_id": 2}\n'
FEEDS = {
    "feed.csv": CSV,
    "mac.csv": CSV.replace(b"\n", b"\r"),
    "feed.csv.gz": gzip.compress(CSV),
    "feed.jsonl": JSONL,
    "feed.parquet": parquet(),
    "feed.tar": archive(),
}


def read_rows(kind: str, path: Path) -> int:
    config = FeedConfig(uri=str(path))
    check_feed(config)
    return sum(work_rows(batch, Counter()).num_rows for batch in read_feed(config))


HOSTILE = (
    None, True, False, 0, -1, 1.5, 10**30, 1e308, float("nan"), float("inf"), -0.0, "", "x", "\ud800", "\0", "../../etc/passwd",
    "x" * 300, "1", [], {}, [[]], [None], [float("nan")] * 6, [1e9] * 6, {"size": [10**6, 10**6], "counts": [10**12]},
    {"size": [60, 40], "counts": "o" * 5000}, {"size": None, "counts": None}, {"size": [-1, -2400], "counts": [2400]},
)  # fmt: skip


def mutated_json(rng: random.Random, data: bytes) -> bytes:
    """The JSON with some values replaced by hostile ones, by each other, or there twice."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        todo = [value]
        while todo:
            one = todo.pop()
            keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
            places += [(one, key) for key in keys]
            todo += [one[key] for key in keys]
        if not places:
            break
        inside, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                other, name = rng.choice(places)
                inside[key] = json.loads(json.dumps(other[name]))
            case 1 if isinstance(inside, list):
                inside.insert(key, json.loads(json.dumps(inside[key])))
            case 2 if isinstance(inside, dict):
                inside[rng.choice(("item1", "item²", "item01", "x", "\ud800"))] = inside.pop(key)
            case 3:
                del inside[key]
            case _:
                inside[key] = json.loads(json.dumps(rng.choice(HOSTILE)))
    written = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return written.replace(b"[]", b"[" * 100_000, 1) if rng.random() < 0.02 else written


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.choice((1, 4, 64))]
            case 2:
                data[at:at] = rng.choice(
                    (b"\0", b"\r", b"\n", b'"', b",", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"nan", b"1e999", b"\xb2")
                )
            case 3:
                data[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"9999"))
            case 4:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + rng.choice((1, 20, 200))]
            case 5 if rng.random() < 0.3:
                del data[at:]
    return bytes(data)


def mutated(rng: random.Random, name: str, data: bytes) -> bytes:
    if name.endswith(".json") and rng.random() < 0.8:
        return mutated_json(rng, data)
    if name.endswith(".jsonl") and rng.random() < 0.6:
        return b"\n".join(mutated_json(rng, line) for line in data.splitlines())
    if name.endswith(".gz") and rng.random() < 0.6:
        return gzip.compress(mutated_bytes(rng, gzip.decompress(data)))
    return mutated_bytes(rng, data)


def survive(read: Callable[[str, Path], int], kind: str, files: dict[str, bytes], path: str, folder: Path, seed: int) -> bool:
    """Whether the files, one of them mutated, were read; asserts the promise either way."""
    rng = random.Random(seed)
    target = rng.choice([name for name, data in files.items() if data])
    (folder / target).write_bytes(mutated(rng, target, files[target]))
    try:
        return read(kind, folder / path) >= 0
    except (UsageError, BadInput):
        return False
    except Exception as e:
        raise AssertionError(f"{kind}, seed {seed}: {target} is {(folder / target).read_bytes()[:2000]!r}") from e
    finally:
        (folder / target).write_bytes(files[target])


CASES = {f"annotations {kind}": (read_annotated, kind, *case) for kind, case in ANNOTATIONS.items()}
CASES |= {f"set {kind}": (read_set, kind, files, "") for kind, files in SETS.items()}
CASES |= {f"feed {name}": (read_rows, name, {name: data}, name) for name, data in FEEDS.items()}


def fuzz(name: str, folder: Path, seeds: range) -> None:
    read, kind, files, path = CASES[name]
    for file, data in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    assert read(kind, folder / path) > 0, "the seed is read"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if any(files.values()):
        num_read = sum(survive(read, kind, files, path, folder, seed) for seed in seeds)
        assert num_read >= len(seeds) // 20, "the mutations are too wild to try the readers"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, "KB"


@pytest.mark.parametrize("name", CASES)
def test_hostile_files(name, tmp_path):
    fuzz(name, tmp_path, range(60))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CASES)
def test_hostile_files_for_longer(name, tmp_path):
    fuzz(name, tmp_path, range(1000, 3000))


def test_hostile_cells(tmp_path):
    """Pictures in a damaged Parquet file are rejects, and end neither the job nor the process."""
    (data,) = lookbench().values()
    found = Counter()
    for seed in range(200):
        file = tmp_path / f"{seed}.parquet"
        file.write_bytes(mutated_bytes(random.Random(seed), data))
        for row in (0, 2):
            found[type(attempt(load_image, f"{file}#{row}", max_bytes=99))] += 1
    assert set(found) == {bytes, Reject}
