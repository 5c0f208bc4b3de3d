"""The page of a demo run: the results of all jobs."""

import csv
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from w2w.garments.page import Box, Seen, colours_of, draw
from w2w.recommend.answers import Recommended
from w2w.report.cards import Piece, product_card, ranked
from w2w.report.page import data_uri, thumbnail, write_page

_SHOWN = 5  # products per garment
_PHOTO_PX = 600
_LEAST = 3  # minimum number of garments in the opening photo


def run_report(
    out: str,
    title: str,
    intro: str,
    jobs: list[dict],
    plans: dict[str, list[dict]],
    opening: dict | None,
    links: dict[str, str],
) -> None:
    """Writes the page to ``out``.

    ``jobs``: job, rows_in, rows_out, rejects (by code), skipped, seconds, rows_per_s, facts. ``plans``: group -> candidates
    that the index planner measured. ``opening``: see ``looked_up``. ``links``: text -> relative path.
    """
    write_page(out, "cli/demo.html.j2", title=title, intro=intro, jobs=jobs, plans=plans, opening=opening, links=links)


def looked_up(shop: Path, neighbours: Path) -> dict | None:
    """The first street photo of a shop written by ``write_shop`` with three garments that were searched for, its garments
    numbered, and the hits of each: photo, alt, garments (number, name, picture, hits). None if there is no such photo."""
    found = {row["query_id"]: row["neighbours"] for row in map(json.loads, neighbours.read_text("utf-8").splitlines())}
    asked = [row for row in _table(shop / "queries.csv") if row["query_id"] in found]
    for number, group in groupby(asked, key=lambda row: Path(row["image"]).stem.partition("-")[0]):
        rows = list(group)
        if len(rows) >= _LEAST:
            return _opening(shop, f"posts/{number}.jpg", rows, found)
    return None


def _opening(shop: Path, photo: str, rows: list[dict], found: dict[str, list[dict]]) -> dict:
    sold = {row["product_id"]: row | {"price": float(row["price"])} for row in _table(shop / "products.csv")}
    with open(shop / "posts.jsonl", encoding="utf-8") as f:
        items = next(post["items"] for post in map(json.loads, f) if post["image"] == photo)
    worn = {item["product_id"]: item["box_xyxy"] for item in items}
    boxes = [Box(row["category"], row["category"], 1.0, worn[row["sku"]]) for row in rows]  # numbered in this order
    picture = draw(Seen(photo, (shop / photo).read_bytes(), boxes), colours_of({row["category"] for row in rows}), _PHOTO_PX)
    garments = [
        {
            "number": number,
            "name": row["category"],
            "sku": row["sku"],
            "picture": thumbnail((shop / row["image"]).read_bytes()),
            "hits": [
                product_card(
                    sold[hit["product_id"]],
                    (shop / "images" / f"{hit['product_id']}.jpg").read_bytes(),
                    "it is this one" if hit["product_id"] == row["sku"] else "",
                    ranked(None, hit["score"]),
                )
                for hit in found[row["query_id"]][:_SHOWN]
            ],
        }
        for number, row in enumerate(rows, 1)
    ]
    alt = "a street photo: " + ", ".join(f"{g['number']} {g['name']}" for g in garments)
    return {"photo": data_uri(picture) if picture else None, "alt": alt, "garments": garments, "wear": []}


def worn_with(shop: Path, outfits: Sequence[Recommended]) -> list[dict]:
    """Outfits as compositions: pieces, and a line about what they are and how well they go together."""
    shown = []
    for outfit in outfits[:_SHOWN]:
        pictures = {item: (shop / "images" / f"{item.product_id}.jpg").read_bytes() for item in outfit.items}
        pieces = [Piece(item.category, thumbnail(data), f"{item.category}: {item.title}") for item, data in pictures.items()]
        named = ", ".join(item.title or item.category for item in outfit.items if not item.given)
        shown.append({"pieces": pieces, "says": named, "score": outfit.score})
    return shown


def _table(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))
