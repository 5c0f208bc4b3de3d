"""What keeps a linear classifier of w2w-fashion's vectors from more, on validation rows: too few rows (a learning curve), which
classes are taken for each other, and labels that pictures alike do not share; beside them what the words of a product's title
tell of its type. The last line is JSON.

python -m tests.bench.fashion_limits [--folder FOLDER]

The tuning of w2w-fashion has seen all rows for training, so of its curve only the end says something; the other is of vectors
that have seen none.
"""

import csv
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tests.bench.fashion import Vectors, figure
from tests.bench.fashion_rows import DATA, PLAIN, TEST, TRAIN, VAL, Rows, read_real
from tests.bench.fashion_train import said
from tests.bench.folder import begin, parser_of
from w2w.models.config import FASHION, LITE0

_SHARES, _DRAWS = (0.25, 0.5, 1.0), 8
_ALIKE = (0.9, 0.85, 0.8)  # cosines


def curve(x_ND: np.ndarray, rows: Rows, labels_N: np.ndarray) -> dict[str, list[float]]:
    """By the share of the clusters that is learnt from: mean accuracy over draws, and its standard deviation."""
    places, asked, found = rows.of(TRAIN), rows.of(VAL), {}
    groups = np.unique(rows.groups_N[places])
    for share in _SHARES:
        hits = []
        for draw in range(_DRAWS if share < 1 else 1):
            kept = np.random.default_rng(draw).permutation(groups)[: round(share * len(groups))]
            part = places[np.isin(rows.groups_N[places], kept)]
            hits.append(float((said(x_ND[part], labels_N[part], x_ND[asked]) == labels_N[asked]).mean()))
        found[f"{share:.0%}"] = [round(float(np.mean(hits)), 3), round(float(np.std(hits)), 3)]
    return found


def mistaken(said_Q: np.ndarray, labels_Q: np.ndarray) -> dict[str, object]:
    """Pairs of classes that are taken for each other, either way, and the accuracy if the first three were one class each."""
    wrong = Counter(" / ".join(sorted(pair)) for pair in zip(labels_Q, said_Q) if pair[0] != pair[1])
    right, first = int((said_Q == labels_Q).sum()), wrong.most_common(6)
    merged = (right + sum(n for _, n in first[:3])) / len(said_Q)
    return {"errors": wrong.total(), "pairs": dict(first), "accuracy, three pairs merged": round(merged, 3)}


def unlike(labels_N: np.ndarray, groups_N: np.ndarray) -> dict[str, float]:
    """Rows in clusters of near-duplicates: how many, and the share whose label is not their cluster's commonest."""
    held: dict[str, Counter] = {}
    for group, label in zip(groups_N.tolist(), labels_N.tolist()):
        held.setdefault(group, Counter())[label] += 1
    several = [c for c in held.values() if c.total() > 1]
    rows = sum(c.total() for c in several)
    return {"rows": rows, "other label": round(1 - sum(max(c.values()) for c in several) / max(rows, 1), 3)}


def neighbours(x_ND: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray) -> dict[str, list[float]]:
    """By cosine: pairs of other clusters that are at least as alike, and the share of them whose labels differ."""
    one, other = np.triu_indices(len(x_ND), 1)
    apart = groups_N[one] != groups_N[other]
    one, other = one[apart], other[apart]
    cosine = (x_ND @ x_ND.T)[one, other]
    differ = labels_N[one] != labels_N[other]
    return {
        str(c): [int((cosine >= c).sum()), round(float(differ[cosine >= c].mean()), 3)] for c in _ALIKE if (cosine >= c).any()
    }


def words(titles: Sequence[str]) -> np.ndarray:
    """float32 (N, W): which words a title has, of length 1."""
    split = [set(t.lower().split()) for t in titles]
    known = {w: i for i, w in enumerate(sorted(set().union(*split)))}
    found = np.zeros((len(split), len(known)), np.float32)
    for row, mine in zip(found, split):
        row[[known[w] for w in mine]] = 1 / np.sqrt(len(mine))
    return found


def by_titles(catalog: Rows, types_N: np.ndarray) -> dict[str, list[float]]:
    """How often a classifier of the titles' words is right, on validation and test."""
    with open(DATA / "catalog" / "products.csv", encoding="utf-8") as f:
        told = words([row["title"] for row in csv.DictReader(f)])
    learnt, found = catalog.of(TRAIN), {}
    for split in (VAL, TEST):
        asked = catalog.of(split)
        right = said(told[learnt], types_N[learnt], told[asked]) == types_N[asked]
        found[f"catalog, {split}, by words of the title"] = figure(right.astype(float), catalog.groups_N[asked])
    return found


def main() -> None:
    _, folder = begin(parser_of(__doc__))
    vectors = Vectors(read_real(folder), folder)
    result: dict[str, object] = {"bench": "fashion_limits"}
    for name, label in (("user_photos", "class"), ("catalog", "type")):
        rows, labels_N = vectors.sets[name], vectors.sets[name].labels[label]
        learnt, asked = rows.of(TRAIN), rows.of(VAL)
        x_ND, seen = vectors.of(FASHION, name, PLAIN), np.concatenate([learnt, asked])
        for model in (LITE0, FASHION):
            result[f"{name}, {model}, curve"] = curve(vectors.of(model, name, PLAIN), rows, labels_N)
        answers = said(x_ND[learnt], labels_N[learnt], x_ND[asked])
        result[f"{name}, errors"] = mistaken(answers, labels_N[asked])
        result[f"{name}, neighbours"] = neighbours(x_ND[seen], labels_N[seen], rows.groups_N[seen])
    catalog = vectors.sets["catalog"]
    types_N, seen = catalog.labels["type"], catalog.of(TRAIN, VAL)
    result["catalog, near-duplicates"] = unlike(types_N[seen], catalog.groups_N[seen])
    result |= by_titles(catalog, types_N)
    for key, value in result.items():
        print(key, value)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
