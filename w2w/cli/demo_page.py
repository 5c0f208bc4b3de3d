"""What a chain of jobs did: the one page that shows whether it works."""

import csv
import json
from itertools import groupby
from pathlib import Path

from w2w.report.page import thumbnail, write_page

_SHOWN = 4  # products of each garment
_LEAST = 3  # garments of the photo that the page opens with


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
    """The first street photo of a shop that ``write_shop`` drew of which three garments were looked up, and what was found for
    each: photo, garments (name, picture, found: name, picture, right). None where there is no such photo."""
    found = {row["query_id"]: row["neighbours"] for row in map(json.loads, neighbours.read_text("utf-8").splitlines())}
    with open(shop / "queries.csv", encoding="utf-8", newline="") as f:
        asked = [row for row in csv.DictReader(f) if row["query_id"] in found]
    for number, rows in groupby(asked, key=lambda row: Path(row["image"]).stem.partition("-")[0]):
        garments = [
            {
                "name": row["category"],
                "picture": thumbnail((shop / row["image"]).read_bytes()),
                "found": [
                    {
                        "name": hit["product_id"],
                        "picture": thumbnail((shop / "images" / f"{hit['product_id']}.jpg").read_bytes()),
                        "right": hit["product_id"] == row["sku"],
                    }
                    for hit in found[row["query_id"]][:_SHOWN]
                ],
            }
            for row in rows
        ]
        if len(garments) >= _LEAST:
            return {"photo": thumbnail((shop / "posts" / f"{number}.jpg").read_bytes(), 420), "garments": garments}
    return None
