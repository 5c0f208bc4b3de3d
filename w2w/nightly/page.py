"""The page of the morning: what is new, gone and broken, what the night did and cost, and the nights before it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from w2w import schema, storage
from w2w.nightly.flow import Told
from w2w.nightly.rules import sentence
from w2w.report.cards import Card, price_text, product_card
from w2w.report.page import duration, write_page
from w2w.results import Summary, words

PAGE = "index.html"
_TITLES = {"new": "New", "back": "Sold again", "changed": "Changed", "gone": "Withdrawn"}
_LAST = "tidy"
_SEEN = {  # figures of the release gate
    "nearer": "answers that gave way to nearer ones",
    "changed": "answers whose product has another picture or category",
    "gone": "answers whose product has left the index",
    "churn": "answers gone for no reason that is known",
    "moved": "queries whose own picture is found less well",
    "swapped": "sampled products whose picture is now another product's",
    "out_of_stock": "answers that are out of stock",
    "golden": "golden answers found",
    "golden_lost": "golden answers lost since last night",
}
_COMPARED = {schema.CATEGORY: "", schema.AVAILABILITY: "", schema.TITLE: "title", schema.IMAGE_ID: "picture"}


@dataclass(frozen=True)
class Section:
    """Products to which one thing happened; ``more``: of these, how many are not shown."""

    kind: str
    title: str
    num: int
    cards: Sequence[Card]
    more: int


@dataclass(frozen=True)
class Line:
    """One step, or one earlier night. ``share``: of the longest, for the bar; ``rows``, ``rejected``: None where not known."""

    name: str
    seconds: float
    share: float
    rows: int | None = None
    rejected: int | None = None
    facts: Mapping[str, str] | None = None
    page: str | None = None
    failed: bool = False
    says: str = ""


def morning_page(
    folder: str,
    says: str,
    why: str | None,
    night: Summary,
    steps: Sequence[tuple[str, Summary | None]],
    told: Told,
    before: Sequence[Mapping[str, Any]],
    ended: datetime,
) -> None:
    """Writes FOLDER/index.html. ``why``: the error of a night that failed; ``steps``: those that began, None where one did not
    end; ``before``: earlier nights as their JSON, the newest first."""
    write_page(
        storage.join(folder, PAGE),
        "nightly/page.html.j2",
        title="The night",
        says=says,
        why=why,
        notices=[sentence(one) for one in getattr(night, "notices", ())],
        sections=_sections(told),
        what=told.what,
        rewritten=told.rewritten,
        too_many=told.too_many,
        rejected=told.rejected,
        findings=_findings(steps),
        seen=_seen(steps),
        steps=_steps(steps, steps[-1][0] if why and steps else None),
        nights=_nights(night, before, says, ended, why is not None),
        written=[(name, *figures) for name, figures in sorted(told.written.items(), key=lambda kv: -kv[1][2])],
        facts={"ended": f"{ended:%Y-%m-%d %H:%M} UTC", "took": duration(night.seconds), "run": night.run_id},
    )


def _sections(told: Told) -> list[Section]:
    counts = {"new": told.new, "back": told.back, "changed": told.changed, "gone": told.gone}
    sections = []
    for kind, title in _TITLES.items():
        if counts[kind]:
            cards = [_card(kind, now, then, told.pictures) for now, then in told.shown.get(kind, [])]
            sections.append(Section(kind, title, counts[kind], cards, counts[kind] - len(cards)))
    return sections


def _card(kind: str, now: Mapping[str, Any], then: Mapping[str, Any] | None, pictures: Mapping[str, bytes]) -> Card:
    notes = [now[schema.CATEGORY]]
    if kind == "changed" and then is not None:
        notes = differences(now, then) or notes
    return product_card(now, pictures.get(now[schema.IMAGE_ID]), notes=notes)


def differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """What a person sees of a change: "price 12.00 EUR → 9.50 EUR", "in_stock → out_of_stock", "picture"."""
    said = []
    before, after = (price_text(row[schema.PRICE], row[schema.CURRENCY]) for row in (then, now))
    if before != after:
        said.append(f"price {before or 'none'} → {after or 'none'}")
    for column, word in _COMPARED.items():
        if now[column] != then[column]:
            said.append(word or f"{then[column] or 'none'} → {now[column] or 'none'}")
    return said


def _steps(steps: Sequence[tuple[str, Summary | None]], failed: str | None) -> list[Line]:
    longest = max([step.seconds for _, step in steps if step is not None], default=0.0) or 1.0
    lines = []
    for name, step in steps:
        said = name.replace("_", " of ")
        if step is None:
            if name == failed or name != _LAST:  # tidying has no result of its own
                lines.append(Line(said, 0.0, 0.0, failed=name == failed))
            continue
        counts = step.counts
        own = _page_of(step) if getattr(step, "report", None) else None
        figures = (step.seconds, step.seconds / longest, counts.read, counts.rejected)
        lines.append(Line(said, *figures, words(step), own, name == failed))
    return lines


def _page_of(step: Summary) -> str:
    return f"../../{step.job}/{step.run_id}/{PAGE}"


def _seen(steps: Sequence[tuple[str, Summary | None]]) -> dict[str, Any] | None:
    """What shoppers see, as the release gate of the index measured it, and its page of answers before and after."""
    index = next((step for name, step in steps if name == "index" and step is not None), None)
    figures = getattr(index, "shoppers_see", None)
    if index is None or not figures:
        return None
    shares = {text: figures[name] for name, text in _SEEN.items() if name in figures}
    page = _page_of(index) if getattr(index, "sheet", None) else None
    if not (shares or page or figures.get("compared") or getattr(index, "refused", ())):
        return None  # a first night: nothing to compare with
    return {"shares": shares, "compared": figures.get("compared"), "refused": getattr(index, "refused", ()), "page": page}


def _findings(steps: Sequence[tuple[str, Summary | None]]) -> dict[str, Any] | None:
    """Of the catalog check, if it was made: the findings, the new ones, and the address of its page."""
    checked = next((step for name, step in steps if name == "check" and step is not None), None)
    findings = getattr(checked, "findings", None)
    if checked is None or not findings:
        return None
    return {"num": sum(findings.values()), "new": getattr(checked, "new", None), "page": _page_of(checked)}


def _nights(night: Summary, before: Sequence[Mapping[str, Any]], says: str, ended: datetime, failed: bool) -> list[Line]:
    """This night and those before it, the newest first; with their hour where a day has several."""
    found = [(ended, night.seconds, says, failed)]
    for one in before:
        when, seconds = one.get("ended"), one.get("seconds")
        if isinstance(when, int | float) and isinstance(seconds, int | float) and 0 <= when < 4e9 and seconds >= 0:
            said, notices = str(one.get("says")), one.get("notices")
            for notice in reversed(notices) if isinstance(notices, list) else ():  # they would stand in every line
                said = said.removesuffix(f" {sentence(str(notice))}")
            found.append((datetime.fromtimestamp(when, UTC), seconds, said, one.get("exit") != 0))
    longest = max(seconds for _, seconds, _, _ in found) or 1.0
    nights = Counter(when.date() for when, _, _, _ in found)
    return [
        Line(
            f"{when:%a %d %b %H:%M}" if nights[when.date()] > 1 else f"{when:%a %d %b}",
            seconds,
            seconds / longest,
            failed=bad,
            says=said.partition(": ")[2] or said,
        )
        for when, seconds, said, bad in found
    ]
