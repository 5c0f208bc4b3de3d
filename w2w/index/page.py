"""The contact sheet of a release: what shoppers saw last night, and what they would see now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from w2w.report.cards import Card
from w2w.report.page import write_page


@dataclass(frozen=True)
class Responsible:
    """A fault in a sentence, the first of the rows that are responsible, and their number."""

    said: str
    cards: Sequence[Card]
    num: int


@dataclass(frozen=True)
class Answered:
    """A query's answers of one night, under a title."""

    said: str
    hits: Sequence[Card]


Asked = tuple[str, str, str | None, tuple[Answered, Answered]]  # id, label, picture; before and after


def release_page(
    out: str,
    faults: Sequence[Responsible],
    accepted: bool,
    figures: Mapping[str, float],
    said: Sequence[str],
    queries: Sequence[Asked],
) -> None:
    """Writes the page to ``out``."""
    verdict = "Nothing stands against publishing this index."
    if faults:
        verdict = (
            "Published all the same, as --accept says." if accepted else "Not published: the version before is still served."
        )
    shown = [
        tuple({"query_id": name, "label": label, "image": image, "said": one.said, "hits": one.hits} for one in both)
        for name, label, image, both in queries
    ]
    write_page(
        out,
        "index/page.html.j2",
        title="Before and after",
        verdict=verdict,
        failed=bool(faults) and not accepted,
        faults=faults,
        facts=figures,
        said=said,
        queries=shown,
    )
