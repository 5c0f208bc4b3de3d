"""The audit's page: leaks between splits, with the pictures side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from w2w.report.page import thumbnail, write_page


@dataclass(frozen=True)
class Leak:
    """One leak to show: its kind, its id, the splits, and for each split a picture (or None) with its caption."""

    kind: str
    id: str
    splits: Sequence[str]
    pictures: Sequence[tuple[bytes | None, str]]
    note: str = ""


def audit_report(
    out: str,
    title: str,
    facts: Mapping[str, object],
    counts: Sequence[tuple[str, str, int]],
    leaks: Sequence[Leak],
    num_leaks: int,
) -> None:
    """Writes the page to ``out``. ``counts``: (kind, splits, count) of all leaks, of which ``leaks`` are shown."""
    shown = [
        {
            "kind": leak.kind,
            "id": leak.id,
            "note": leak.note,
            "pictures": [(s, thumbnail(data), text) for s, (data, text) in zip(leak.splits, leak.pictures)],
        }
        for leak in leaks
    ]
    write_page(
        out, "mining/audit/page.html.j2", title=title, facts=facts, counts=list(counts), leaks=shown, num_leaks=num_leaks
    )
