"""The contact sheet: query photos on the left, the products found for them on the right."""

from collections import Counter
from dataclasses import dataclass

from w2w.report.page import thumbnail, write_page


@dataclass(frozen=True)
class Hit:
    """A product that was found. ``correct`` is None where nobody knows."""

    product_id: str
    title: str
    category: str
    score: float
    image: bytes | None
    correct: bool | None = None


@dataclass(frozen=True)
class QueryResult:
    """A query and its hits, nearest first. ``answered``: whether the catalog has a right answer."""

    query_id: str
    image: bytes | None
    label: str
    hits: list[Hit]
    answered: bool


def search_report(
    out: str,
    title: str,
    facts: dict[str, object],
    queries: list[QueryResult],
    num_queries: int,
    sought: str,
) -> None:
    """Writes the page to ``out``. ``num_queries`` is how many there were in all; ``sought`` what a right answer shares with its
    query, for example "sku and colour"."""
    shown = [
        {
            "id": q.query_id,
            "image": thumbnail(q.image),
            "label": q.label,
            "miss": q.answered and not _is_right(q),
            "hits": [
                {"title": h.title, "category": h.category, "score": h.score, "image": thumbnail(h.image), "correct": h.correct}
                for h in q.hits
            ],
        }
        for q in queries
    ]
    judged = [_is_right(q) for q in queries if q.answered]
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
        sought=sought,
    )


def _is_right(query: QueryResult) -> bool:
    return bool(query.hits) and bool(query.hits[0].correct)
