"""How well `w2w check` finds products whose feed gives a wrong colour or type. The last line is JSON.

python -m tests.bench.check_values [--share .03] [--seeds 20] [--attribute colour|type] [--folder FOLDER] [--quick]

On test pictures of `catalog` (W2W_DATA, default ../shared/data), from which w2w-tags has not learnt, a share of the products
gets the value of another product that shares no word with its own. `check`: what `w2w check` lists, with precision and recall
and 95 % intervals by bootstrap over near-duplicates; `unplanted`: the length of its list without any swap, some of which is
doubtful in the shop itself; `elsewhere`: the same for the colours of `views`, worn in another shop. The threshold was not
chosen on any picture: it follows from 3 wrong of 100 and 15 values. Average precision: of the products whose picture says
another value, by how improbable their own is (`check`), and by how sure the tagger is of the other, which is all that table
`attributes` keeps (`tags`).
"""

import csv
import json
import sys

import numpy as np
import pyarrow as pa

from tests.bench.check_swaps import average_precision
from tests.bench.fashion import figure
from tests.bench.fashion_rows import DATA, PLAIN, TEST, Rows, computed, read_real
from tests.bench.folder import begin, parser_of
from w2w.check.rules_values import Compared, known
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.training.tags.heads import Head, load
from w2w.training.tags.job import TAGS


def listed(head: Head, given: list[str], vectors_ND: np.ndarray) -> np.ndarray:
    """bool (N,): what `w2w check` lists."""
    compared = Compared(head, pa.chunked_array([pa.array(given, pa.string())]))
    rows = np.flatnonzero(compared.asked_N)
    compared.add(rows, vectors_ND[rows])
    return np.isin(np.arange(len(given)), compared.contradicted().rows)


def rankings(head: Head, given: list[str], vectors_ND: np.ndarray) -> dict[str, np.ndarray]:
    """Float (N,) each: how likely a value is wrong, by two ways."""
    chances_NC, own_NC = head.classifier(vectors_ND), known(given, head.classifier.labels)
    own_N, place_N = (chances_NC * own_NC).sum(axis=1), chances_NC.argmax(axis=1)
    other = own_NC.any(axis=1) & ~own_NC[np.arange(len(given)), place_N]
    return {"check": np.where(other, -own_N, -2), "tags": np.where(other, chances_NC.max(axis=1), -1)}


def with_wrong(given: list[str], own_NC: np.ndarray, asked: np.ndarray, share: float, rng: np.random.Generator):
    """The values with some of the ``asked`` rows' replaced, and which: bool (N,)."""
    planted = asked & own_NC.any(axis=1) & (rng.random(len(given)) < share)
    changed, others = list(given), np.flatnonzero(own_NC.any(axis=1))
    for row in np.flatnonzero(planted):
        apart = others[~(own_NC[others] & own_NC[row]).any(axis=1)]
        changed[row] = given[rng.choice(apart)]
    return changed, planted


def said(rows: Rows, column: str) -> list[str]:
    """As the shop wrote it."""
    file = {"catalog": "products.csv", "views": "views.csv"}[rows.name]
    with open(DATA / rows.name / file, encoding="utf-8") as f:
        return [row[column] for row in csv.DictReader(f)]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--share", type=float, default=0.03, help="of the products that get a wrong value")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--attribute", choices=("colour", "type"), default="colour")
    parser.add_argument("--quick", action="store_true", help="two seeds")
    options, folder = begin(parser)
    tagger = load(TAGS)
    encoder, head = load_encoder(EncoderConfig(tagger.encoder, colour=tagger.colour)), tagger.heads[options.attribute]
    sets = read_real(folder)
    rows, column = sets["catalog"], {"colour": "colour", "type": "product_type"}[options.attribute]
    given, vectors = said(rows, column), np.array(computed(rows, PLAIN, encoder, folder, encoder.model_version))
    own, asked = known(given, head.classifier.labels), np.isin(np.arange(len(given)), rows.of(TEST))
    found: list[tuple[np.ndarray, ...]] = []
    for seed in range(2 if options.quick else options.seeds):
        changed, planted = with_wrong(given, own, asked, options.share, np.random.default_rng(1000 + seed))
        ways = rankings(head, changed, vectors)
        some = (listed(head, changed, vectors), planted, ways["check"], ways["tags"], rows.groups_N)
        found.append(tuple(column[asked] for column in some))
    told, planted, by_check, by_tags, groups = (np.concatenate(parts) for parts in zip(*found))
    unplanted = listed(head, given, vectors) & asked
    result: dict = {"name": "check_values", "unit": "average precision", "attribute": options.attribute, "share": options.share}
    result |= {"products": int(asked.sum()), "known": int((asked & own.any(axis=1)).sum())}
    result["check"] = {
        "average_precision": round(average_precision(by_check, planted), 3),
        "precision": figure(planted[told].astype(float), groups[told]),
        "recall": figure(told[planted].astype(float), groups[planted]),
        "listed": round(float(told.sum()) / len(found), 1),
        "unplanted": int(unplanted.sum()),
    }
    result["tags"] = {"average_precision": round(average_precision(by_tags, planted), 3)}
    if options.attribute == "colour":
        worn = sets["views"]
        vectors = np.array(computed(worn, PLAIN, encoder, folder, encoder.model_version))
        result["elsewhere"] = {"pictures": len(worn.files), "unplanted": int(listed(head, said(worn, "colour"), vectors).sum())}
    for row in np.flatnonzero(unplanted):
        print("unplanted:", rows.files[row], given[row], file=sys.stderr)
    result["value"] = result["check"]["average_precision"]
    result["ratio"] = round(result["value"] / result["tags"]["average_precision"], 3)
    print(json.dumps(result | {"peer": "the probability that table attributes keeps"}))


if __name__ == "__main__":
    main()
