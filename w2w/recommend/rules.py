"""Outfits from a catalog: the given items are completed by beam search over a scorer of pairs.

An outfit is top, bottom and shoes, or a dress and shoes, plus any extras asked for. Its score is the mean of its pairs' scores.
Rows are those of a Shelf; given items that are not sold (garments of a photo) have rows after these.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from w2w.errors import UsageError
from w2w.find.rules import plural
from w2w.garments.taxonomy import BOTTOM, CATEGORIES, DRESS, TOP
from w2w.recommend.house import DIFFERENT, SAME
from w2w.recommend.shelf import CODE, EXTRAS, FORMS, ORDER, Applied, Shelf

_NEVER = np.float32(-np.inf)


class Space(Protocol):
    """Items projected for a scorer. ``classes``: those it knows."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def pair(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float32 (A, B): how well rows ``a``, all of one class, go with rows ``b``, all of another; higher is better."""

    def shown(self, score: float) -> float:
        """A score in the form shown to people."""


@dataclass(frozen=True)
class OutfitConfig:
    """What is recommended."""

    extras: tuple[str, ...] = ()
    """Asked for beside the garments: outer, bag, hat."""
    answers: int = 5
    """Outfits for each question."""
    diversity: float = 0.2
    """Weight of maximal marginal relevance: what an outfit's score loses when all its products were shown before."""
    candidates: int = 64
    """Products per slot that go best with the given items: the search considers no others."""
    beam: int = 32
    """Unfinished outfits kept at each slot (beam width)."""

    def __post_init__(self):
        object.__setattr__(self, "extras", tuple(self.extras))
        for name in self.extras:
            if name not in EXTRAS:
                raise UsageError(f"outfit.extras: {name!r} is not one of {', '.join(EXTRAS)}")
        for name in ("answers", "candidates", "beam"):
            if getattr(self, name) < 1:
                raise UsageError(f"outfit.{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.diversity <= 1:
            raise UsageError(f"outfit.diversity={self.diversity}: between 0 and 1")


@dataclass(frozen=True)
class Outfit:
    """``rows`` in the order of dressing, ``pairs`` the score of each two of them (in ``itertools`` order), ``score`` their
    mean, in the form shown to people."""

    rows: tuple[int, ...]
    score: float
    pairs: tuple[float, ...]


@dataclass(frozen=True)
class Question:
    """The given items, and the candidates for the other slots: rows of products by class, ``pinned`` those that a merchandiser
    set. ``why``: why it cannot be answered. ``floors``: by class, the score that a product has to reach to become a candidate;
    -inf while there is room. ``lacking``: classes that stay empty, of extras asked for, or so that there is no outfit."""

    given: tuple[int, ...]
    forms: tuple[tuple[str, ...], ...]
    candidates: dict[str, np.ndarray]
    pinned: frozenset[str] = frozenset()
    why: str = ""
    floors: dict[str, float] = field(default_factory=dict, compare=False)
    lacking: tuple[str, ...] = field(default=(), compare=False)


class Stylist:
    """Completes outfits from a shelf. ``class_M``: of all rows, including those after the shelf's, whose price and brand are
    unknown."""

    def __init__(self, shelf: Shelf, applied: Applied, space: Space, config: OutfitConfig, more: Sequence[str] = ()):
        """``more``: classes of given items that are not sold."""
        self.shelf, self.applied, self.space, self.config = shelf, applied, space, config
        extra = len(more)
        self.class_M = np.concatenate([shelf.class_N, np.array([CODE[c] for c in more], np.int8)])
        self._brand = np.concatenate([shelf.brand_N, np.full(extra, -1)])
        self._group = np.concatenate([shelf.group_N, -1 - np.arange(extra)])
        self._price = np.concatenate([np.nan_to_num(shelf.price_N), np.zeros(extra)])
        self._never = [tuple(np.concatenate([mask, np.zeros(extra, bool)]) for mask in two) for two in applied.never]
        self._stock = {c: np.flatnonzero(applied.allowed_N & (shelf.class_N == CODE[c])) for c in CATEGORIES}
        unknown = [e for e in config.extras if e not in space.classes]
        if unknown:
            raise UsageError(
                f"outfit.extras={unknown[0]}: this scorer knows {', '.join(space.classes)} only; --scorer=worn knows all"
            )

    @property
    def size(self) -> int:
        """Rows of the shelf and those after it."""
        return len(self.class_M)

    def category(self, row: int) -> str:
        return CATEGORIES[self.class_M[row]]

    def pair(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The space's, also for no rows."""
        return self.space.pair(a, b) if len(a) and len(b) else np.zeros((len(a), len(b)), np.float32)

    def question(self, given: Sequence[int]) -> Question:
        """The given items with their candidates: for each slot those that go best with them."""
        (found,) = self.questions([tuple(given)])
        return found

    def questions(self, asked: Sequence[tuple[int, ...]]) -> list[Question]:
        """The same for many questions with the same classes and number of items: one matrix product per slot."""
        if not asked:
            return []
        given_QG = np.array(asked)
        classes = [self.category(row) for row in asked[0]]
        found = [self._begun(given, classes) for given in asked]
        wanted = {c for q in found for form in q.forms for c in form if c not in classes}
        for place in (c for c in ORDER if c in wanted):
            for i, (rows, is_pinned, floor) in enumerate(self._best(given_QG, place, found[0].forms)):
                if not found[i].why:
                    found[i].candidates[place], found[i].floors[place] = rows, floor
                    found[i] = replace(found[i], pinned=found[i].pinned | {place}) if is_pinned else found[i]
        return [self._possible(q) for q in found]

    def _begun(self, given: tuple[int, ...], classes: Sequence[str]) -> Question:
        twice = [c for c, n in Counter(classes).items() if n > 1]
        if twice:
            raise UsageError(f"an outfit has one {twice[0]}, and {Counter(classes)[twice[0]]} are given")
        if DRESS in classes and {TOP, BOTTOM} & set(classes):
            raise UsageError("a dress and a top or bottom are given: they fill the same place")
        unknown = [c for c in classes if c not in self.space.classes]
        if unknown:
            return Question(given, (), {}, why=f"the scorer knows nothing of what a {unknown[0]} goes with")
        sold = [row for row in given if row < len(self.shelf)]
        if banned := [row for row in sold if self.applied.banned_N[row]]:
            which = "it" if len(given) == 1 else " and ".join(f"the {self.category(row)}" for row in banned)
            return Question(given, (), {}, why=f"{which} is banned")
        if any(self._barred(np.array([a]), np.array([b])).any() for a, b in itertools.combinations(given, 2)):
            return Question(given, (), {}, why="what is given may not be together")
        pinned = {c for beside, _, pin_classes in self.applied.pins if self.holds(beside, given) for c in pin_classes}
        extras = [c for c in EXTRAS if c in (*self.config.extras, *classes) or (c in pinned and c in self.space.classes)]
        forms = [form for form in FORMS if not lacks_place(form, classes) and set(form) <= set(self.space.classes)]
        agreeing = [len(pinned & set(form)) for form in forms]
        forms = [form for form, n in zip(forms, agreeing) if n == max(agreeing)]
        whole = tuple(tuple(c for c in ORDER if c in {*form, *extras}) for form in forms)
        return Question(given, whole, {}, why="" if whole else "the scorer knows no whole outfit")

    def holds(self, beside: np.ndarray | None, given: Sequence[int]) -> bool:
        """Whether a pin or ban that applies ``beside`` some products applies here."""
        return beside is None or any(row < len(self.shelf) and beside[row] for row in given)

    def _best(
        self, given_QG: np.ndarray, place: str, forms: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[np.ndarray, bool, float]]:
        """For each question, the products of a slot that go best with the given items and are allowed beside them, best first;
        whether they are pinned; and the floor. If a whole outfit has a price limit, half of them are cheap enough that any
        choice among these stays within it."""
        stock, keep, total_max = self._stock[place], self.config.candidates, self.applied.house.total_max
        scores_QN = np.zeros((len(given_QG), len(stock)), np.float32)
        for given_Q in given_QG.T:
            scores_QN += self.pair(given_Q, stock)
            scores_QN[self._barred(given_Q, stock)] = _NEVER
        for given, scores_N in zip(given_QG, scores_QN):
            for beside, banned in self.applied.bans:
                if self.holds(beside, given):
                    scores_N[banned[stock]] = _NEVER
            if total_max is not None:  # before pins: one that is too dear leaves its place to others
                left = total_max - self._price[given].sum()
                scores_N[self._price[stock] > left] = _NEVER
            pins = [
                mask[stock] for beside, mask, classes in self.applied.pins if place in classes and self.holds(beside, given)
            ]
            pinned = np.logical_or.reduce([np.zeros(len(stock), bool), *pins]) & (scores_N > _NEVER)
            if is_pinned := bool(pinned.any()):
                scores_N[~pinned] = _NEVER
            if total_max is None:
                best = _highest(scores_N, keep)
                floor = _least(scores_N, best, keep)
            else:
                share = left / max(1, max(map(len, forms), default=1) - len(given))
                cheap = np.where(self._price[stock] <= share, scores_N, _NEVER)
                half, rest = _highest(scores_N, -(-keep // 2)), _highest(cheap, keep // 2)
                floor = min(_least(scores_N, half, -(-keep // 2)), _least(cheap, rest, keep // 2))
                best = np.union1d(half, rest)
                best = best[np.argsort(-scores_N[best], kind="stable")]
            yield stock[best], is_pinned, np.inf if is_pinned else floor  # whoever is pinned comes in whatever it scores

    def _possible(self, question: Question) -> Question:
        """Drops forms with an empty slot, and extras without candidates."""
        if question.why:
            return question
        given = [self.category(row) for row in question.given]
        filled = {c for c, rows in question.candidates.items() if len(rows)} | set(given)
        forms = [form for form in question.forms if {c for c in form if c not in EXTRAS} <= filled]
        forms = [tuple(c for c in form if c in filled) for form in forms]
        forms = [form for form in forms if len(form) > 1]
        lacking = sorted({c for form in question.forms for c in form if c not in EXTRAS} - filled)
        why = "" if forms else f"there is nothing to show for {' or '.join(lacking)}"
        extras = [c for c in self.config.extras if c not in filled]
        return replace(question, forms=tuple(forms), why=why, lacking=tuple(extras if forms else [*lacking, *extras]))

    def _barred(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """bool (A, B): which rows must not be in one outfit."""
        barred = np.zeros((len(a), len(b)), bool)
        for _, some in self._bars(a, b):
            barred |= some
        return barred

    def _bars(self, a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The same for each reason."""
        yield "the same product", self._group[a][:, None] == self._group[b][None]
        one, other, house = self._brand[a][:, None], self._brand[b][None], self.applied.house
        if house.brands == SAME:
            bought = (a < len(self.shelf))[:, None] & (b < len(self.shelf))[None]  # a garment of a photo has no brand
            yield "of another brand", bought & ((one != other) | (one < 0))
        elif house.brands == DIFFERENT:
            yield "of the same brand", (one == other) & (other >= 0)
        for (these, those), (rule, _) in zip(self._never, house.never_together):
            mask = (these[a][:, None] & those[b][None]) | (those[a][:, None] & these[b][None])
            yield f"never together by line {rule.line}", mask

    def why_empty(self, place: str, given: Sequence[int] = ()) -> str | None:
        """Why no product of a class can be shown, beside what is given, in a sentence; None if some can."""
        rows = np.flatnonzero(self.shelf.class_N == CODE[place])
        if not len(rows):
            unseen = self.shelf.unseen.get(place, 0)
            return (
                f"the {unseen:,} {plural(place)} have no vector: run 'w2w embed'" if unseen else f"you sell no {plural(place)}"
            )
        refused = self.applied.reason_N[rows]
        counts = Counter(self.applied.reasons[r] for r in refused[refused >= 0].tolist())
        beside = self.refusals(given, self._stock[place])
        told = ", ".join(f"{n:,} {why}" for why, n in (counts + beside).most_common())
        return None if beside.total() < len(self._stock[place]) else f"none of the {plural(place)} can be shown: {told}"

    def refusals(self, given: Sequence[int], rows: np.ndarray) -> Counter[str]:
        """How many of these rows may not stand beside what is given, by the first reason against each."""
        counts, left = Counter[str](), np.ones(len(rows), bool)
        for why, mask in self._refused(given, rows):
            counts[why] += int((left & mask).sum())
            left &= ~mask
        return counts

    def _refused(self, given: Sequence[int], stock: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        for row in given:
            for why, mask in self._bars(np.array([row]), stock):
                yield why, mask[0]
        for (beside, banned), ban in zip(self.applied.bans, (b for b in self.applied.house.bans if b.beside is not None)):
            if self.holds(beside, given):
                yield f"banned by line {ban.what.line}", banned[stock]
        if self.applied.house.total_max is not None:
            left = self.applied.house.total_max - self._price[list(given)].sum()
            yield f"too dear for total.max={self.applied.house.total_max:g}", self._price[stock] > left

    def emptied(self) -> list[str]:
        """A sentence for each class that no question can show: extras asked for, those that rules leave nothing of, and all if
        there is no whole outfit."""
        forms = [form for form in FORMS if set(form) <= set(self.space.classes)]
        whole = any(all(len(self._stock[c]) for c in form) for form in forms)
        sold = {CATEGORIES[c] for c in np.unique(self.shelf.class_N)}
        wanted = [c for c in ORDER if any(c in form for form in forms) and (not whole or c in sold)]
        return [why for c in (*wanted, *self.config.extras) if (why := self.why_empty(c))]

    def answers(self, question: Question) -> list[Outfit]:
        """The best outfits, with diversity: one after the other, each the best that the search finds once its score has lost
        ``diversity`` x the largest share of its new products that an earlier answer has (Carbonell and Goldstein 1998, section
        2), with no product except a pinned one in more than ``max_uses`` of them. If several forms are possible, they
        alternate."""
        if question.why:
            return []
        tables = {form: _Table(self, question, form) for form in question.forms}
        uses: Counter[int] = Counter()
        shown: list[Outfit] = []
        turn = itertools.cycle(list(tables))
        while tables and len(shown) < self.config.answers:
            form = next(turn)
            if form not in tables:
                continue
            best = tables[form].next(uses, shown)
            if best is None:
                del tables[form]
                continue
            shown.append(best)
            new = [row for row in best.rows if row not in question.given and self.category(row) not in question.pinned]
            uses.update(int(self._group[row]) for row in new)
        return shown

    def outfit(self, rows: Sequence[int]) -> Outfit:
        """These rows with their scores."""
        rows = sorted(rows, key=lambda row: ORDER.index(self.category(row)))
        two = itertools.combinations(rows, 2)
        pairs = [float(self.pair(np.array([a]), np.array([b]))[0, 0]) for a, b in two]
        mean = float(np.mean(pairs)) if pairs else float("nan")
        return Outfit(tuple(rows), self.space.shown(mean), tuple(map(self.space.shown, pairs)))


def _highest(scores_N: np.ndarray, count: int) -> np.ndarray:
    """Positions of the highest scores, highest first; ties by position."""
    best = np.arange(len(scores_N))
    if len(scores_N) > count:
        least = np.partition(scores_N, -count)[-count] if count else np.inf
        above = np.flatnonzero(scores_N > least)
        best = np.sort(np.concatenate([above, np.flatnonzero(scores_N == least)[: count - len(above)]]))
    best = best[np.argsort(-scores_N[best], kind="stable")]
    return best[scores_N[best] > _NEVER]


def _least(scores_N: np.ndarray, best: np.ndarray, count: int) -> float:
    """The least of the ``count`` highest scores; -inf where there are not so many."""
    return np.inf if not count else float(scores_N[best[-1]]) if len(best) == count else -np.inf


def lacks_place(form: Sequence[str], classes: Sequence[str]) -> bool:
    return any(c not in form and c not in EXTRAS for c in classes)


class _Table:
    """The scores of one form's candidates with each other, and the beam over them."""

    def __init__(self, stylist: Stylist, question: Question, form: tuple[str, ...]):
        self._stylist, self._given = stylist, question.given
        given = [stylist.category(row) for row in question.given]
        self._places = [c for c in form if c not in given]
        self._rows = [question.candidates[c] for c in self._places]
        pair, barred = stylist.pair, stylist._barred
        fixed = [pair(np.array([a]), np.array([b]))[0, 0] for a, b in itertools.combinations(question.given, 2)]
        self._start = float(sum(fixed))
        self._num_pairs = len(form) * (len(form) - 1) // 2
        self._own = [
            sum((pair(np.array([g]), rows)[0] for g in question.given), np.zeros(len(rows), np.float32)) for rows in self._rows
        ]
        self._with: dict[tuple[int, int], np.ndarray] = {}
        for s, t in itertools.combinations(range(len(self._rows)), 2):
            scores = pair(self._rows[s], self._rows[t])
            self._with[s, t] = np.where(barred(self._rows[s], self._rows[t]), _NEVER, scores)
        self._group = [stylist._group[rows] for rows in self._rows]
        house = stylist.applied.house
        self._left = np.inf if house.total_max is None else house.total_max - sum(stylist._price[g] for g in question.given)
        self._price = [stylist._price[rows] for rows in self._rows]

    def next(self, uses: Counter[int], shown: Sequence[Outfit]) -> Outfit | None:
        """The best outfit not in ``shown``; None if there is none."""
        stylist = self._stylist
        if shown and not self._places:
            return None
        worn_out = [g for g, n in uses.items() if n >= stylist.applied.house.max_uses]
        open_ = [~np.isin(groups, worn_out) for groups in self._group]
        scores, places = self._beam(open_, stylist.config.beam + len(shown))
        before = [{int(stylist._group[r]) for r in outfit.rows} for outfit in shown]
        best, found = -np.inf, None
        for score, chosen in zip(scores, places):
            groups = {int(self._group[s][i]) for s, i in enumerate(chosen)}
            alike = max((len(groups & seen) / max(1, len(groups)) for seen in before), default=0.0)
            if alike == 1.0:
                continue
            worth = stylist.space.shown(score / self._num_pairs) - stylist.config.diversity * alike
            if worth > best:
                best, found = worth, chosen
        if found is None:
            return None
        return stylist.outfit([*self._given, *(int(self._rows[s][i]) for s, i in enumerate(found))])

    def _beam(self, open_: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
        """(sums of the pairs' scores (B,), the candidate of each slot (B, slots)), best first."""
        scores, price = np.array([self._start], np.float32), np.zeros(1)
        chosen = np.zeros((1, 0), np.int64)
        for t, own in enumerate(self._own):
            total = scores[:, None] + np.where(open_[t], own, _NEVER)[None]
            for s in range(t):
                total = total + self._with[s, t][chosen[:, s]]
            spent = price[:, None] + self._price[t][None]
            total[spent > self._left] = _NEVER
            flat = total.ravel()
            best = np.argsort(-flat, kind="stable")[:width]
            best = best[flat[best] > _NEVER]
            of, at = np.divmod(best, len(own))
            scores, price = flat[best], spent.ravel()[best]
            chosen = np.concatenate([chosen[of], at[:, None]], axis=1)
        return scores, chosen


def chance(stylist: Stylist, given: Sequence[int], count: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Outfits whose new products are all drawn at random from what may be recommended: the baseline of a scorer."""
    question = stylist._begun(tuple(given), [stylist.category(row) for row in given])
    for _ in range(count if question.forms else 0):
        form = question.forms[int(rng.integers(len(question.forms)))]
        stocks = [stylist._stock[c] for c in form if c not in [stylist.category(row) for row in given]]
        if all(len(stock) for stock in stocks):
            yield (*given, *(int(rng.choice(stock)) for stock in stocks))
