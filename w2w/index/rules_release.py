"""What of a night's answers may not be published, and which rows are responsible.

A night may change answers only for a reason. An answer of last night that is gone tonight is explained if the product is
withdrawn or has another picture or category, or if everything shown instead is nearer to the query. What remains is churn: an
exact search over the same vectors has none, an approximate one whose template was trained anew up to about twice what
``target_recall`` leaves out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.index.golden import Golden
from w2w.index.seen import STOCK, Here, Query
from w2w.index.spec import IndexConfig
from w2w.schema import AVAILABILITY, CATEGORY, PRODUCT_ID

_TIE, _CODES = 1e-4, 0.02  # scores that are equal: of one template's codes, of two templates'
_MOVED = 0.1  # a vector's cosine with itself, by its codes, is lower than last night by less
_SAME_PICTURE = 0.98  # cosine of a picture and the same encoded anew
_NAMED = 3  # in a sentence
_LEAST = 5  # fewer products than this never fail a night
_LEAST_GOLDEN = 2
_NONE_OUT = 10  # so many products do not come back into stock in one night, with nothing else out of stock
_IN_CATEGORY = 3  # a category's stock may shift by so many times what the shop's may
_OUT = "out_of_stock"  # of products.availability


@dataclass(frozen=True)
class Release:
    """What one run compares. ``page``: where the sheet goes; ``photos``: vectors of golden photos, by key."""

    store: str
    page: str
    golden: tuple[Golden, ...] = ()
    photos: Mapping[str, np.ndarray] | None = None
    accept: bool = False
    sheet: bool = False
    num_threads: int = 1
    command: str = "w2w index"


@dataclass(frozen=True)
class Row:
    """A row that is responsible, and why."""

    product_id: str
    category: str
    why: str


@dataclass(frozen=True)
class Fault:
    """What fails: a kind, a sentence without the rows, and the rows, worst first."""

    kind: str
    said: str
    rows: tuple[Row, ...] = ()

    @property
    def sentence(self) -> str:
        """With the first of the rows that are responsible."""
        rows = [f"{row.product_id} ({row.why})" for row in self.rows]
        return f"{self.said}: {some(rows)}" if rows else self.said


@dataclass(frozen=True)
class Found:
    """Of one night: figures for the manifest, in all and by category; what fails; what is only said; and the queries (by
    ``key``) whose answers are worst, for the page."""

    figures: dict[str, float] = field(default_factory=dict)
    by_category: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    said: tuple[str, ...] = ()
    worst: tuple[str, ...] = ()


def some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def most_churn(cfg: IndexConfig) -> float:
    """Two templates miss other answers: each what ``target_recall`` leaves out."""
    return 0.05 + 2 * (1 - cfg.target_recall) if cfg.max_churn is None else cfg.max_churn


def churn(
    before: Mapping[str, Query],
    now: Mapping[str, Query],
    here: Here,
    cfg: IndexConfig,
    same_template: Iterable[str] = (),
) -> Found:
    """Compares the sample's answers. ``same_template``: categories whose codes are those of last night."""
    k, same, most = cfg.recall_at, frozenset(same_template), most_churn(cfg)
    shares, moved, lost = dict[str, list[float]](), dict[str, list[str]](), dict[str, Counter[str]]()
    total, unexplained, nearer, changed, gone, worst = 0, 0, 0, 0, 0, dict[str, float]()
    for key in before.keys() & now.keys():
        old, new = before[key], now[key]
        assert new.category
        assert new.product
        margin = _TIE if new.category in same else _CODES
        shown, then = new.first(k), old.first(k)
        names, last = {hit[0] for hit in shown}, shown[-1][2] if len(shown) == k else -np.inf
        missing = [hit for hit in then if hit[0] not in names]
        sold = [hit for hit in missing if here.has(hit[0])]
        still = [hit for hit in sold if (hit[0], hit[1], new.category) in here.rows]
        without = [hit for hit in still if hit[2] > last + margin]
        total, unexplained = total + len(then), unexplained + len(without)
        gone, changed = gone + len(missing) - len(sold), changed + len(sold) - len(still)
        nearer += len(still) - len(without)
        share = len(without) / len(then) if then else 0.0
        shares.setdefault(new.category, []).append(share)
        lost.setdefault(new.category, Counter()).update(hit[0] for hit in without)
        if _has_moved(old, new, margin):
            moved.setdefault(new.category, []).append(new.product)
            share += 1
        if share:
            worst[key] = share
    faults, by_category = [], {}
    for category, found in sorted(shares.items()):
        mean, error = float(np.mean(found)), float(np.std(found) / np.sqrt(len(found)))
        away = moved.get(category, [])
        by_category[category] = {"churn": mean, "moved": len(away) / len(found)}
        if mean - 2 * error > most and len(lost[category]) >= _LEAST:
            rows = _named(lost[category], category, "gone from {} answers")
            faults.append(Fault("churn", f"category {category!r}: {_unexplained(mean, most)}", rows))
        if len(away) / len(found) > most and len(away) >= _LEAST:
            rows = tuple(Row(product, category, "is not found by its vector of last night") for product in sorted(away))
            what = "sampled products are not found by their own vectors of last night"
            said = f"category {category!r}: {len(away)} of {len(found)} {what} (index.max_churn: {most:.3g})"
            faults.append(Fault("moved", said, rows))
    overall = unexplained / total if total else 0.0
    if overall > most and not faults and unexplained >= _LEAST:
        rows = tuple(row for c in lost for row in _named(lost[c], c, "gone from {} answers"))
        faults.append(Fault("churn", _unexplained(overall, most), rows))
    num = sum(map(len, shares.values()))
    figures = {"compared": float(num)}
    if num:
        of = total or 1
        figures |= {"churn": overall, "nearer": nearer / of, "changed": changed / of, "gone": gone / of}
        figures["moved"] = sum(map(len, moved.values())) / num
    order = sorted(worst, key=lambda key: (-worst[key], key))
    return Found(figures, by_category, tuple(faults), worst=tuple(order))


def _has_moved(old: Query, new: Query, margin: float) -> bool:
    """Whether the query's own picture, found last night, is not found by the same vector, or at a lower score."""
    then, now = (next((hit for hit in q.hits if hit[0] == q.product and hit[1] == q.image), None) for q in (old, new))
    if then is None:
        return False
    if now is None:
        return not new.hits or then[2] > new.hits[-1][2] + margin or len(new.hits) < len(old.hits)
    return now[2] < then[2] - _MOVED


def _unexplained(share: float, most: float) -> str:
    return f"{share:.3f} of last night's answers are gone though nothing about them changed (index.max_churn: {most:.3g})"


def _named(counted: Mapping[str, int], category: str, why: str) -> tuple[Row, ...]:
    """The products, the most frequent first."""
    order = sorted(counted, key=lambda product: (-counted[product], product))
    return tuple(Row(product, category, why.format(counted[product])) for product in order)


def swapped(before: Mapping[str, Query], again: Mapping[str, Query], here: Here, cfg: IndexConfig) -> Found:
    """Products of last night's sample that are still sold, and whose picture is now another product's and not theirs: a feed
    whose rows were shifted. A picture that both had last night is nobody's. ``again``: the answers of tonight to queries whose
    product has another picture; they tell of pictures that are the same but for their bytes."""
    rows, still, worst = list[Row](), 0, list[str]()
    for key, query in sorted(before.items()):
        assert query.product
        assert query.category
        if not here.has(query.product):
            continue
        still += 1
        if owner := _taken_by(query, again.get(key), here):
            rows.append(Row(query.product, query.category, f"its picture is now of {owner}"))
            worst.append(key)
    share = len(rows) / still if still else 0.0
    faults = ()
    if share > cfg.max_swapped and len(rows) >= _LEAST:
        said = f"{len(rows)} of {still} sampled products have given their picture to another product"
        faults = (Fault("swapped", f"{said} (index.max_swapped: {cfg.max_swapped:g})", tuple(rows)),)
    return Found({"swapped": share} if still else {}, faults=faults, worst=tuple(worst) if faults else ())


def _taken_by(query: Query, again: Query | None, here: Here) -> str | None:
    """The product whose picture the query's product had last night, unless it had it then, too."""
    owners = here.owners.get(query.image or "", frozenset())
    if owners:
        had = {product for product, image, _ in query.hits if image == query.image}
        return None if query.product in owners or owners & had else min(owners)
    if again is None or not again.hits:
        return None
    product, _, score = again.hits[0]
    as_near = {name for name, _, then in query.hits if then > _SAME_PICTURE - _CODES}
    return product if score > _SAME_PICTURE and product != query.product and product not in as_near else None


def golden(
    queries: Sequence[Golden],
    before: Mapping[str, Query],
    now: Mapping[str, Query],
    here: Here,
    cfg: IndexConfig,
    same_model: bool = True,
    same_template: Iterable[str] = (),
) -> Found:
    """The golden queries, as far as they were asked tonight. Expected products that are not sold count for nobody. Fails where
    a row finds fewer than its ``min_hits``, a category's share is below its floor, or of what was found last night more than
    ``max_golden_fall`` is lost, without what is nearer to the query."""
    floors, same = list[Row](), frozenset(same_template)
    lost, were, nearer, unsold, worst = list[Row](), 0, 0, dict[str, None](), list[str]()
    hits, wanted = Counter[str](), Counter[str]()
    for one in queries:
        tonight = now.get(one.key)
        if tonight is None:
            continue
        sold = [product for product in one.expected if here.has(product)]
        unsold |= dict.fromkeys(product for product in one.expected if product not in sold)
        shown = tonight.first(one.k)
        names = {hit[0] for hit in shown}
        found = [product for product in sold if product in names]
        category = tonight.category or "all"
        hits[category] += len(found)
        wanted[category] += len(sold)
        if len(found) < min(one.min_hits, len(sold)):
            missing = [product for product in sold if product not in names]
            why = f"{one.label}: {len(found)} of {one.min_hits} are among its first {one.k}"
            floors += [Row(product, category, why) for product in missing]
            worst.append(one.key)
        old = before.get(one.key)
        if old is None or (old.image, old.category) != (tonight.image, tonight.category):
            continue
        then = {product: (image, score) for product, image, score in old.first(one.k) if product in sold}
        were += len(then)
        last = shown[-1][2] if len(shown) == one.k else -np.inf
        margin = _TIE if category in same else _CODES
        for product in then.keys() - names:
            image, score = then[product]
            unchanged = product in here.owners.get(image, ())
            if same_model and unchanged and score <= last + margin:
                nearer += 1
                continue
            lost.append(Row(product, category, f"{one.label}: was among its first {one.k}"))
            worst.append(one.key)
    faults = []
    if floors:
        num = len({row.why for row in floors})
        do = "y does" if num == 1 else "ies do"
        faults.append(Fault("golden", f"{num} golden quer{do} not find the min_hits", tuple(floors)))
    if were and len(lost) > cfg.max_golden_fall * were and len(lost) >= _LEAST_GOLDEN:
        what = "golden answers found last night are lost"
        said = f"{len(lost)} of {were} {what} (index.max_golden_fall: {cfg.max_golden_fall:g})"
        faults.append(Fault("golden", said, tuple(sorted(lost, key=lambda row: (row.why, row.product_id)))))
    by_category = {c: {"golden": hits[c] / wanted[c]} for c in sorted(wanted) if wanted[c]}
    for category, least in sorted(cfg.golden_floors.items()):
        share = by_category.get(category, {}).get("golden", 1.0)
        if share < least:
            said = f"category {category!r}: golden queries find {share:.3f}"
            faults.append(Fault("golden", f"{said} (index.golden_floors: {least:g})"))
    figures = {"golden": hits.total() / wanted.total()} if wanted.total() else {}
    if were:
        figures |= {"golden_lost": len(lost) / were, "golden_nearer": nearer / were}
    said = (f"expected by golden queries, and not sold: {some(list(unsold))}",) if unsold else ()
    silent = [one.label for one in queries if one.key not in now]
    said += (f"golden queries that cannot be asked: {some(silent)}",) if silent else ()
    return Found(figures, by_category, tuple(faults), said, tuple(dict.fromkeys(worst)))


def stock_of(now: Mapping[str, Query], availability: Mapping[str, str | None], k: int) -> pa.Table:
    """STOCK: of each product among the sample's answers, in how many it is, by the query's category."""
    counted = Counter((hit[0], q.category) for q in now.values() for hit in q.first(k))
    rows = sorted(counted.items())
    columns = [[key[0] for key, _ in rows], [key[1] for key, _ in rows], [availability.get(key[0]) for key, _ in rows]]
    return pa.table([*columns, [num for _, num in rows]], names=STOCK.names).cast(STOCK)


def stock(before: pa.Table | None, now: pa.Table, cfg: IndexConfig) -> Found:
    """The share of answers that are out of stock, and of those of which that is not known, against last night."""
    known = now[AVAILABILITY].null_count < now.num_rows
    figures = dict(zip(("out_of_stock", "stock_unknown"), _shares(now))) if known else {}
    parts = {category: now.filter(pc.equal(now[CATEGORY], category)) for category in sorted(set(now[CATEGORY].to_pylist()))}
    by_category = {category: {"out_of_stock": _shares(part)[0]} for category, part in parts.items() if known}
    if before is None:
        return Found(figures, by_category)
    faults = _shifted(before, now, cfg, cfg.max_stock_shift, "")
    for category, part in parts.items() if not faults else ():
        last = before.filter(pc.equal(before[CATEGORY], category))
        faults += _shifted(last, part, cfg, _IN_CATEGORY * cfg.max_stock_shift, f"category {category!r}: ")
    return Found(figures, by_category, tuple(faults))


def _shifted(before: pa.Table, now: pa.Table, cfg: IndexConfig, most: float, where: str) -> list[Fault]:
    rows = _turned(before, now)
    if not before.num_rows or len(rows) < _LEAST:
        return []
    (out, unknown), (out_then, unknown_then) = _shares(now), _shares(before)
    if max(unknown, unknown_then) <= 0.5 and abs(out - out_then) > most:
        said = f"{where}{out:.3f} of the answers are out of stock, {out_then:.3f} last night"
    elif not (where or out or unknown) and before.filter(pc.equal(before[AVAILABILITY], _OUT)).num_rows >= _NONE_OUT:
        said = f"none of the answers is out of stock, {out_then:.3f} last night"
    elif unknown - unknown_then > most:
        said = (
            f"{where}of {unknown:.3f} of the answers it is not known whether they are in stock, {unknown_then:.3f} last night"
        )
    else:
        return []
    return [Fault("stock", f"{said} (index.max_stock_shift: {cfg.max_stock_shift:g})", rows)]


def _shares(rows: pa.Table) -> tuple[float, float]:
    """Answers that are out of stock, of those of which it is known, and answers of which it is not, of all."""
    num = rows["answers"].to_numpy()
    known = rows[AVAILABILITY].is_valid().to_numpy(zero_copy_only=False)
    out = pc.fill_null(pc.equal(rows[AVAILABILITY], _OUT), False).to_numpy(zero_copy_only=False)
    return float(num[out].sum() / max(1, num[known].sum())), float(num[~known].sum() / max(1, num.sum()))


def _turned(before: pa.Table, now: pa.Table) -> tuple[Row, ...]:
    """Products of which it is said otherwise than last night, those in most answers first."""
    then = dict(zip(before[PRODUCT_ID].to_pylist(), before[AVAILABILITY].to_pylist()))
    order = now.sort_by([("answers", "descending"), (PRODUCT_ID, "ascending")])
    rows = dict[str, Row]()
    for product, category, said, num in zip(*(order[name].to_pylist() for name in STOCK.names)):
        if product in then and said != then[product]:
            why = f"{said or 'not known'}, {then[product] or 'not known'} last night, in {num} answers"
            rows.setdefault(product, Row(product, category, why))
    return tuple(rows.values())


def together(parts: Sequence[Found]) -> Found:
    """All of a night; a category's figures side by side."""
    by_category: dict[str, dict[str, float]] = {}
    for part in parts:
        for category, figures in part.by_category.items():
            by_category.setdefault(category, {}).update(figures)
    figures = {name: value for part in parts for name, value in part.figures.items()}
    faults, said = (tuple(one for part in parts for one in getattr(part, name)) for name in ("faults", "said"))
    return Found(figures, by_category, faults, said, tuple(dict.fromkeys(key for part in parts for key in part.worst)))
