"""People's judgements of search results: the newest verdict on each query and product counts."""

from dataclasses import dataclass, field

from w2w import schema
from w2w.table import delta


@dataclass(frozen=True)
class Judgements:
    """Query -> the products judged the same, and those judged similar; and the queries that match nothing in the shop. A
    verdict on a whole query overrides earlier ones on its products, and vice versa."""

    same: dict[str, set[str]] = field(default_factory=dict)
    similar: dict[str, set[str]] = field(default_factory=dict)
    not_ours: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.same or self.similar or self.not_ours)


def read_judgements(store: str, kind: str) -> Judgements:
    """Judgements of queries of one kind (``search --of``); empty if nobody judged any."""
    columns = [schema.QUERY_ID, schema.PRODUCT_ID, schema.VERDICT, schema.JUDGED_AT, schema.KEY]
    rows = delta.read(store, schema.JUDGEMENTS, columns, kind=kind).to_pylist()
    found = Judgements()
    for row in sorted(rows, key=lambda r: (r[schema.JUDGED_AT], r[schema.KEY])):
        query, product, verdict = (row[c] for c in (schema.QUERY_ID, schema.PRODUCT_ID, schema.VERDICT))
        if verdict == schema.NOT_OURS:
            found.not_ours.add(query)
            for said in (found.same, found.similar):
                said.pop(query, None)
            continue
        found.not_ours.discard(query)
        now, before = (found.same, found.similar) if verdict == schema.SAME else (found.similar, found.same)
        now.setdefault(query, set()).add(product)
        before.get(query, set()).discard(product)
    return found
