"""What the steps of a night say of it to a person: notices, and the parts of its sentence."""

from collections.abc import Sequence

from w2w.crawl.job import Result as Crawled
from w2w.index.job import Result as Indexed
from w2w.models.job import Result as Embedded
from w2w.nightly.rules import first_of


def notices(crawled: Crawled | None, indexed: Sequence[Indexed | None], upgraded: Embedded | None) -> list[str]:
    """What a person should know though the night went well."""
    found = [crawled.warning] if crawled and crawled.warning else []
    for step in filter(None, indexed):
        if step.held_back:
            found.append(
                f"{step.published} stays the published index, as {step.held_back} was rolled back from; w2w index --release "
                f"{step.held_back} lets it be published"
            )
        if step.nothing_to_index:
            found.append(f"nothing can be found any more: {step.nothing_to_index}")
        elif step.why_not_permitted:
            found.append(step.why_not_permitted)
        if step.unknown_products:
            found.append(f"golden queries name products that the catalog never had: {first_of(step.unknown_products)}")
    if upgraded and upgraded.counts.read and not upgraded.left:
        found.append(f"every picture has been computed with {upgraded.encoder} now: its own index can be published")
    return found


def what_became(index: Indexed | None, taken_out: int, before: str | None) -> str:
    """Of the index, for the sentence of the night. ``taken_out``: pictures that left it without its step; ``before``: the
    version that the last page told of."""
    taken_out += index.taken_out or 0 if index else 0
    if index is not None and index.nothing_to_index:
        return "nothing is published any more" if index.withdrawn else "nothing is published"
    if taken_out and (index is None or index.unchanged or index.refused or index.published is None):
        pictures = f"{taken_out:,} picture{'s' if taken_out != 1 else ''}"
        return f"{pictures} that search may not use any more left the published index"
    if index is not None and index.unchanged and before and index.published != before:
        return "an index that an earlier run has published"
    if index is None or index.unchanged or index.refused or index.published is None:
        return "the published index stays as it was"
    return "index held back" if index.held_back else "index published"


def answers_changed(index: Indexed | None) -> str:
    """Of the sample that the release gate compares, as words: "4 answers in 1,000 changed"."""
    seen = index.shoppers_see if index else {}
    changed = sum(seen.get(figure, 0.0) for figure in ("churn", "nearer", "changed", "gone"))
    told = f"{round(1000 * changed):,} answers in 1,000"
    would = index is not None and index.refused
    return f"{told} {'would have changed' if would else 'changed'}, " if round(1000 * changed) else ""
