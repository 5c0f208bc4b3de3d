"""The morning's list: findings by kind, the gravest first, each with its product, and what is new."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.check.kinds import HIGH, KINDS, LOW, MEDIUM
from w2w.report.cards import Card, product_card
from w2w.report.page import write_page
from w2w.shown import without_secrets

PAGE, LINES = "index.html", "findings.jsonl"
_WORDS = {HIGH: "mend first", MEDIUM: "look at", LOW: "note"}
_FOLDED = ("placeholder", "shared_picture")  # those that share a picture are one card
_MOST_OTHERS = 20
_AT_ONCE = 4096


@dataclass(frozen=True)
class Shown:
    """A card, and what is said of it. ``since``: a day, or "" where it is new."""

    card: Card
    detail: str
    since: str


def write_lines(folder: str, rows: pa.Table) -> None:
    """FOLDER/findings.jsonl: a line a finding."""
    with storage.writer(storage.join(folder, LINES)) as file:
        for batch in rows.to_batches(_AT_ONCE):
            for row in batch.to_pylist():
                row |= {c: row[c].isoformat() for c in (schema.SINCE, schema.CHECKED_AT)}
                file.write(json.dumps(without_secrets(row), ensure_ascii=False).encode() + b"\n")


def chosen(rows: pa.Table, now: datetime, most: int) -> dict[str, list[list[dict[str, Any]]]]:
    """For each kind that there is, at most ``most`` cards, the new ones first: findings on one card are a list."""
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for kind in KINDS:
        some = rows.filter(pc.equal(rows.column(schema.KIND), kind))
        new = pc.equal(some.column(schema.SINCE), pa.scalar(now, schema.TIME))
        cards: dict[object, list[dict[str, Any]]] = {}
        for part in (some.filter(new), some.filter(pc.invert(new))):
            for batch in part.to_batches(_AT_ONCE):
                if len(cards) >= most and kind not in _FOLDED:
                    break
                for row in batch.to_pylist():
                    key = (row[schema.ABOUT] if kind in _FOLDED else None) or row[schema.CHECK_ID]
                    if key in cards or len(cards) < most:
                        card = cards.setdefault(key, [])
                        card += [row] if len(card) <= _MOST_OTHERS else []
        if cards:
            found[kind] = list(cards.values())
    return found


def check_report(
    folder: str,
    rows: pa.Table,
    cards: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    products: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, bytes],
    now: datetime,
    last: datetime | None,
    gone: int,
    left_out: Mapping[str, str],
    facts: Mapping[str, object],
) -> None:
    """Writes FOLDER/index.html. ``rows``: of `checks`; ``cards``: ``chosen`` of them; ``products``: rows by id; ``pictures``:
    by image id; ``last``: when the last run was."""
    counted = {(kind, new): 0 for kind in KINDS for new in (True, False)}
    for batch in rows.to_batches(_AT_ONCE):
        for kind, since in zip(
            *(batch.column(batch.schema.get_field_index(c)).to_pylist() for c in (schema.KIND, schema.SINCE))
        ):
            counted[kind, since == now] += 1
    sections = []
    for kind, told in cards.items():
        about = KINDS[kind]
        shown = [_shown(card, products, pictures, now) for card in told]
        num, new = counted[kind, True] + counted[kind, False], counted[kind, True]
        sections.append(
            {
                "kind": kind,
                "title": about.title,
                "says": about.says,
                "word": _WORDS[about.severity],
                "first": about.severity == HIGH,
            }
            | {"num": num, "new": new, "shown": shown, "folded": kind in _FOLDED}
        )
    grave = sum(counted[kind, new] for kind, new in counted if KINDS[kind].severity == HIGH)
    new = sum(num for (_, is_new), num in counted.items() if is_new)
    write_page(
        storage.join(folder, PAGE),
        "check/page.html.j2",
        title="Catalog check",
        day=f"{now:%A}, {now.day} {now:%B %Y}",
        num=rows.num_rows,
        grave=grave,
        new=new,
        gone=gone,
        last=_day(last, now) if last else "",
        sections=sections,
        left_out=[(KINDS[kind].title, why) for kind, why in left_out.items()],
        facts=dict(facts),
        lines=LINES,
    )


def _day(then: datetime, now: datetime) -> str:
    """The day, or the hour of today."""
    if then.date() == now.date():
        return f"{then:%H:%M} UTC"
    return f"{then.day} {then:%B}" + (f" {then.year}" if then.year != now.year else "")


def _shown(
    card: Sequence[Mapping[str, Any]], products: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, bytes], now: datetime
) -> Shown:
    first, *others = (products.get(row[schema.PRODUCT_ID], {schema.PRODUCT_ID: row[schema.PRODUCT_ID]}) for row in card)
    row = card[0]
    image = next((pictures[i] for i in row[schema.IMAGE_LIST] if i in pictures), None)
    more = f"on {len(others)} more product{'s' if len(others) > 1 else ''}" if others else ""
    notes = [first[schema.CATEGORY]] if first.get(schema.CATEGORY) else []
    since = min(one[schema.SINCE] for one in card)
    day = "" if since == now else _day(since, now)
    return Shown(product_card(first, image, notes=notes, more=more, others=others), row[schema.REJECT_DETAIL], day)
