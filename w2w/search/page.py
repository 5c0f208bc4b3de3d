"""The contact sheet: query photos on the left, the products found for them on the right."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from w2w.models.reasons import Reason
from w2w.report.cards import Card
from w2w.report.page import thumbnail, write_page

_QUERY_PX = 320


@dataclass(frozen=True)
class QueryResult:
    """A query and its results, nearest first. ``answered``: whether the catalog has a right answer; ``right``: whether the
    nearest is one; ``reasons``: why the nearest look like it."""

    query_id: str
    image: bytes | None
    label: str
    hits: Sequence[Card]
    answered: bool
    right: bool = False
    reasons: Sequence[Reason] = ()


def search_report(
    out: str,
    title: str,
    facts: dict[str, object],
    queries: list[QueryResult],
    num_queries: int,
    sought: str,
    kind: str = "feed",
) -> None:
    """Writes the page to ``out``. ``num_queries`` is their total number; ``sought`` what a right answer shares with its query,
    for example "sku and colour"; ``kind``: of the queries, for the file of judgements."""
    shown = [
        {
            "id": q.query_id,
            "image": thumbnail(q.image, _QUERY_PX),
            "label": q.label,
            "miss": q.answered and not q.right,
            "hits": q.hits,
            "reasons": q.reasons,
        }
        for q in queries
    ]
    judged = [q.right for q in queries if q.answered]
    write_page(
        out,
        "search/page.html.j2",
        title=title,
        facts=facts,
        queries=shown,
        labels=sorted(Counter(q["label"] for q in shown).items()),
        num_queries=num_queries,
        num_right=sum(judged) if judged else None,
        num_judged=len(judged),
        num_unjudged=len(shown) - len(judged),
        marked=any(card.mark for q in queries for card in q.hits),
        sought=sought,
        kind=kind,
    )
