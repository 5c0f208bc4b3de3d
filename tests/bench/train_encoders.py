"""Encoders before and after training, on products that were not in training. Last line: JSON.

python -m tests.bench.train_encoders STORE --shops FOLDER [FOLDER ...]     pairs of the synthetic shop, by its true boxes
python -m tests.bench.train_encoders STORE --views FOLDER                  back and other views -> main view, split by sku
python -m tests.bench.train_encoders STORE --recipe head|encoder [--learn KEY=VALUE ...] [--train KEY=VALUE ...]
python -m tests.bench.train_encoders STORE --encoder FOLDER                only measures

Training runs in this process, by the functions that `w2w train` gives its workers; the seconds are CPU seconds. With --gallery
VIEWS the test anchors are looked for among all main views of VIEWS' test split, not only among those that have an anchor.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.cluster.paired import Shot, embed, fill, jpeg, vectors_of
from w2w import schema
from w2w.models.encoder import EncoderConfig, load_encoder
from w2w.runtime.memory import keep_memory
from w2w.runtime.training.encoders import TEST, make_training, measure_pictures, pair_table
from w2w.table import delta
from w2w.training.config import MODEL, LoopConfig
from w2w.training.encoders.config import LearnConfig
from w2w.training.encoders.pairs import figures, relevance

NUM_TEST, NUM_VAL = 300, 80  # products
_MOST = {"train": 6, "val": 2, "test": 1}  # pairs of a product
_LEAST_VISIBLE, _PADDING = 0.35, 0.08


def shots(folders: list[Path]) -> Iterator[Shot]:
    """Pairs of all shops: what is worn by its true box, a little larger; products split at random."""
    worn: dict[str, list[tuple[Path, dict]]] = {}
    thumbnails, categories = {}, {}
    for folder in folders:
        with open(folder / "products.csv", encoding="utf-8") as f:
            for row in csv.DictReader(f):
                thumbnails.setdefault(row["product_id"], folder / row["image"])
                categories[row["product_id"]] = row["category"]
        for line in (folder / "posts.jsonl").read_text().splitlines():
            post = json.loads(line)
            for item in post["items"]:
                if item["visible_fraction"] >= _LEAST_VISIBLE:
                    worn.setdefault(item["product_id"], []).append((folder / post["image"], item))
    rng = np.random.default_rng(0)
    for number, product in enumerate(rng.permutation(sorted(worn)).tolist()):
        split = "test" if number < NUM_TEST else "val" if number < NUM_TEST + NUM_VAL else "train"
        for photo, item in worn[product][: _MOST[split]]:
            image = np.asarray(Image.open(photo).convert("RGB"))
            x0, y0, x1, y1 = item["box_xyxy"]
            dx, dy = int((x1 - x0) * _PADDING) + 2, int((y1 - y0) * _PADDING) + 2
            crop = image[max(0, y0 - dy) : y1 + dy, max(0, x0 - dx) : x1 + dx]
            if min(crop.shape[:2]) >= 16:
                yield Shot(product, categories[product], split, jpeg(crop), thumbnails[product].read_bytes())


def view_shots(folder: Path) -> Iterator[Shot]:
    """Pairs of a product's other views, as anchors, and its main one; every sixth sku of the train split is held out."""
    rows = _views(folder)
    mains = {_product(r): r for r in rows if r["view"] == "main"}
    skus = sorted({r["sku"] for r in rows if r["split"] == "train"})
    held = set(skus[::6])
    for r in rows:
        if r["view"] != "main" and _product(r) in mains:
            split = "val" if r["sku"] in held else r["split"]
            anchor, positive = ((folder / one["image"]).read_bytes() for one in (r, mains[_product(r)]))
            yield Shot(_product(r), r["category"].split("/")[1], split, anchor, positive)


def among_all_mains(store: str, folder: Path, config: EncoderConfig) -> dict[str, float]:
    """The test pairs' anchors among all main views of the test split."""
    encoder = load_encoder(config)
    mains = [r for r in _views(folder) if r["view"] == "main" and r["split"] == "test"]
    listed = pair_table(store, None, None).read(TEST)
    crops = delta.read(store, schema.GARMENTS, [schema.GARMENT_ID, schema.CROP])
    crop_of = dict(zip(*(c.to_pylist() for c in crops.columns)))
    anchors = [crop_of[g] for g in listed.rows.column(schema.GARMENT_ID).to_pylist()]
    gallery = [(folder / r["image"]).read_bytes() for r in mains]
    sides = [vectors_of(encoder, pictures) for pictures in (anchors, gallery)]
    products = np.array(listed.rows.column(schema.PRODUCT_ID).to_pylist()), np.array([_product(r) for r in mains])
    return figures(relevance(*sides, *products)) | {"gallery": len(gallery)}


def _views(folder: Path) -> list[dict]:
    with open(folder / "views.csv", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def _product(row: dict) -> str:
    return f"{row['sku']} {row['colour']}"


def embed_all(store: str, encoder: EncoderConfig) -> None:
    for table, column, kind in ((schema.GARMENTS, schema.CROP, "garment"), (schema.IMAGES, schema.BYTES, "image")):
        rows = delta.read(store, table, [table.key[0], column])
        embed(store, dict(zip(*(c.to_pylist() for c in rows.columns))), kind, encoder)


def train(store: str, recipe: str, encoder: EncoderConfig, learn: LearnConfig, loop: LoopConfig, out: Path) -> dict:
    from w2w.training.loop import fit

    table = pair_table(store, None, None)
    wall, cpu = time.perf_counter(), time.process_time()
    training = make_training(table, recipe, encoder, learn, loop, 0, 1)
    history = []

    def report(found: dict, write) -> None:
        history.append(found)
        shown = {k: round(v, 3) for k, v in (found["losses"] | found.get("val", {})).items()}
        print(f"step {found['step']}: {shown}, {time.process_time() - cpu:.0f} CPU s", flush=True)
        if found["step"] == loop.steps or "ended" in found:
            write(out)

    fit(training, report)
    return {"cpu_s": round(time.process_time() - cpu), "wall_s": round(time.perf_counter() - wall)}


def _settings(words: list[str]) -> dict:
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--shops", nargs="*", type=Path)
    parser.add_argument("--views", type=Path)
    parser.add_argument("--gallery", type=Path)
    parser.add_argument("--recipe")
    parser.add_argument("--encoder", default=EncoderConfig().name)
    parser.add_argument("--learn", nargs="*", default=[])
    parser.add_argument("--train", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_memory()
    encoder = EncoderConfig(name=options.encoder)
    if options.shops or options.views:
        fill(options.store, shots(options.shops) if options.shops else view_shots(options.views))
        embed_all(options.store, encoder)
    table = pair_table(options.store, None, None)
    result: dict = {split: len(table.read(split)) for split in ("train", "val", TEST)}
    if options.recipe:
        learn, loop = _settings(options.learn), _settings(options.train)
        out = options.out or Path(tempfile.mkdtemp())
        settings = replace(LearnConfig(), **learn), replace(LoopConfig(), **loop)
        result |= {"recipe": options.recipe, "learn": learn, "train": loop}
        result |= train(options.store, options.recipe, encoder, *settings, out)
        encoder = replace(encoder, name=str(out / MODEL))
    result |= figures(measure_pictures(table, encoder, 10_000)[0])
    if options.gallery:
        result["among all mains"] = among_all_mains(options.store, options.gallery, encoder)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
