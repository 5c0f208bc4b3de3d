"""The wardrobe's street posts as tables: photos, products, tags and, where a test wants no detector, the true boxes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from w2w import ids, schema
from w2w.garments import boxes
from w2w.garments.stage import garment_id, to_jpeg
from w2w.images.decode import decode, probe
from w2w.ingest.feed import FeedConfig, read_feed
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

TRUTH = "truth"  # stage version of the true boxes
LEAST_VISIBLE = 0.35


def append(store: str, table: schema.Table, rows: list[dict], stage_version: str = "1") -> None:
    lineage = Lineage("fill", "fill", "fill", stage_version, {"product_key": []}, {}, "x")
    append_rows(store, Output(table), pa.Table.from_pylist(rows, schema=table.schema), lineage)


def image_row(data: bytes) -> dict:
    info = probe(data)
    sizes = {schema.WIDTH: info.width, schema.HEIGHT: info.height, schema.FORMAT: info.format, schema.PHASH: 0}
    return {schema.IMAGE_ID: ids.image_id(data), schema.BYTES: data, schema.SOURCE_URI: "x", schema.FETCHED_AT: 0} | sizes


def post_row(post_id: str, image_id: str, product_ids: Sequence[str]) -> dict:
    known = {schema.POST_ID: post_id, schema.IMAGE_ID: image_id, schema.PRODUCT_IDS: list(product_ids)}
    url = f"https://shop.example/style/{post_id}"
    return known | {"url": url, "image_uri": "x", "product_urls": [], "active": True, "row_digest": "x", "fetched_at": 0}


def split_rows(product_ids: Sequence[str], post_ids: Sequence[str]) -> list[dict]:
    owners = [*((p, "product") for p in product_ids), *((p, "post") for p in post_ids)]
    return [
        {"owner_id": o, "owner_kind": kind, "component_id": "c", "component_size": len(owners), "split": "train"}
        for o, kind in owners
    ]


def truth(shop: Path) -> dict[str, dict]:
    """What stands in posts.jsonl, by post."""
    return {row["post_id"]: row for row in map(json.loads, (shop / "posts.jsonl").read_text().splitlines())}


def fill(store: str, shop: Path, wrong_tags: float = 0.0, seed: int = 0) -> set[tuple[str, str]]:
    """products, posts, images and splits of a shop that ``write_shop`` wrote. That share of the tags names another product of
    the class; returns (post, product) of those that were replaced."""
    products = pa.concat_tables([batch.rows for batch in read_feed(FeedConfig(uri=str(shop / "products.csv")))]).to_pylist()
    data = [(shop / "images" / f"{p[schema.PRODUCT_ID]}.jpg").read_bytes() for p in products]
    rows = [
        {c: p.get(c) for c in schema.PRODUCTS.schema.names} | {"image_id": ids.image_id(d), "active": True, "fetched_at": 0}
        for p, d in zip(products, data)
    ]
    append(store, schema.PRODUCTS, rows)
    category = {p[schema.PRODUCT_ID]: p[schema.CATEGORY] for p in products}
    posts, replaced, rng = [], set(), np.random.default_rng(seed)
    for post_id, row in truth(shop).items():
        photo = (shop / row["image"]).read_bytes()
        tags = []
        for item in row["items"]:
            tag = item["product_id"]
            if rng.random() < wrong_tags:
                replaced.add((post_id, tag))
                worn = {i["product_id"] for i in row["items"]}
                tag = str(rng.choice([p for p, c in category.items() if c == category[tag] and p not in worn]))
            tags.append(tag)
        posts.append(post_row(post_id, ids.image_id(photo), tags))
        data.append(photo)
    append(store, schema.POSTS, posts)
    append(store, schema.IMAGES, [image_row(d) for d in dict.fromkeys(data)])
    append(store, schema.SPLITS, split_rows(list(category), [p[schema.POST_ID] for p in posts]))
    return replaced


def true_garments(store: str, shop: Path, least_visible: float = 0.15, shift: float = 0.06) -> None:
    """garments and looks of a detector that misses nothing: true boxes, each side off by up to ``shift`` of the box."""
    rng, garments, looks = np.random.default_rng(1), [], []
    for row in truth(shop).values():
        data = (shop / row["image"]).read_bytes()
        photo, image_id = decode(data), ids.image_id(data)
        for item in row["items"]:
            x0, y0, x1, y1 = item["box_xyxy"]
            off = rng.uniform(-shift, shift, 4) * [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
            box = boxes.clip(np.array([item["box_xyxy"] + off]), photo.shape[1], photo.shape[0]).round()[0].tolist()
            if item["visible_fraction"] < least_visible or min(box[2] - box[0], box[3] - box[1]) < 4:
                continue
            garments.append(
                {
                    "garment_id": garment_id(image_id, item["category"], box, TRUTH),
                    "image_id": image_id,
                    "category": item["category"],
                    "original_label": item["category"],
                    "score": 0.9,
                    "box_xyxy": box,
                    "crop": to_jpeg(boxes.crop(photo, box)),
                    "crop_source": "box",
                    "stage_version": TRUTH,
                }
            )
        look = {"image_id": image_id, "num_garments": 0, "crop_source": "person", "stage_version": TRUTH}
        looks.append(look)
    append(store, schema.GARMENTS, garments, TRUTH)
    append(store, schema.LOOKS, looks, TRUTH)


@dataclass(frozen=True)
class Found:
    """How right a table `pairs` is, as (precision, recall): pairs of the right product; those of them whose box overlaps that
    garment more than any other in the photo; those whose box overlaps it by IoU >= .5."""

    product: tuple[float, float]
    garment: tuple[float, float]
    half: tuple[float, float]


def precision_and_recall(store: str, shop: Path, replaced: set[tuple[str, str]] = frozenset()) -> Found:
    """Of the pairs of visible garments, and of the true tags of them. A garment of which less than ``LEAST_VISIBLE`` is seen
    counts neither way, like the difficult ones of PASCAL VOC."""
    photos = truth(shop)
    items = {(post, i["product_id"]): i for post, row in photos.items() for i in row["items"]}
    visible = {key for key, i in items.items() if i["visible_fraction"] >= LEAST_VISIBLE}
    found = delta.read(store, schema.GARMENTS, [schema.GARMENT_ID, schema.BOX])
    box_of = dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist()))
    pairs = delta.read(store, schema.PAIRS, [schema.POST_ID, schema.PRODUCT_ID, schema.GARMENT_ID]).to_pylist()
    ours = {(p[schema.POST_ID], p[schema.PRODUCT_ID]): box_of[p[schema.GARMENT_ID]] for p in pairs}
    ours = {key: box for key, box in ours.items() if key in visible or key not in items}
    same, garment, half = set(ours) & visible, set(), set()
    for post, product in same:
        worn = photos[post]["items"]
        ious = boxes.iou(np.array([ours[post, product]]), np.array([i["box_xyxy"] for i in worn], float))[0]
        of = [i["product_id"] for i in worn].index(product)
        garment |= {(post, product)} if ious.argmax() == of else set()
        half |= {(post, product)} if ious[of] >= 0.5 else set()
    wanted = visible - replaced
    return Found(*((len(right) / len(ours), len(right & wanted) / len(wanted)) for right in (same, garment, half)))
