"""Changes beside the shards: the answers are those of an index built from scratch with the same template, id for id."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from w2w import storage
from w2w.errors import JobFailed
from w2w.index import answers
from w2w.index.answers import Answers
from w2w.index.gate import exact_part, gate, search
from w2w.index.manifest import template_uri
from w2w.index.merge import merged
from w2w.index.publish import collect_garbage, new_manifest, publish, published
from w2w.index.search import Index, open_index, open_manifest
from w2w.index.seen import SAMPLE, ask
from w2w.index.shard import (
    build_shard,
    built_shard,
    damaged_file,
    kept_template,
    plan_groups,
    plan_shards,
    sample,
    train_template,
)
from w2w.index.spec import IndexConfig
from w2w.index.truth import FOUND, Known, flat_of, known_of, queries_of, read_truth, to_bytes, truth_of, with_found
from w2w.models.config import EncoderConfig

from .conftest import DIM, Catalog, make_catalog, run_job

CFG = IndexConfig(
    max_rows_per_shard=100,
    exact_below_rows=90,
    target_recall=0.1,
    layer_from_rows=30,
    layer_share=0.25,
    gate_queries=12,
    recall_at=4,
    nprobe=3,
)


def changed(catalog: Catalog, rng: np.random.Generator, night: int) -> Catalog:
    """Products go, come, come back, have another picture, one more, one fewer, or another category."""
    rows, vectors = catalog.rows.to_pylist(), dict(catalog.vectors)
    products = sorted({r["product_id"] for r in rows})
    for product in rng.choice(products, 3, replace=False):
        mine = [r for r in rows if r["product_id"] == product]
        what = rng.integers(6)
        others = [r for r in rows if r["product_id"] != product]
        if what == 0:
            rows = others
        elif what == 1:
            rows = others + mine[1:]
        elif what in (2, 3):
            image = f"{product}-new-{night}"
            vectors[image] = rng.standard_normal(DIM).astype(np.float32)
            rows = others + [r | {"image_id": image} for r in mine[:1]] + mine[what - 2 :]
        elif what == 4:
            rows = others + [r | {"category": str(rng.choice(["tops", "shoes", "hats"]))} for r in mine]
        else:
            known = sorted(vectors)
            image = known[rng.integers(len(known))]  # a picture that was there before, perhaps of another product
            rows = rows + [{"product_id": f"{product}x", "image_id": image, "category": mine[0]["category"]}]
    unique = [dict(t) for t in dict.fromkeys(tuple(sorted(r.items())) for r in rows)]
    return Catalog(pa.Table.from_pylist(unique, schema=catalog.rows.schema), vectors)


class Nights:
    """The index job night by night, with what its gate knows, as in flow._made."""

    def __init__(self, uri: str, cfg: IndexConfig):
        self.uri, self.cfg, self.read, self.asked = uri, cfg, 0, 0.0

    def run(self, catalog: Catalog) -> Index:
        uri, cfg, base = self.uri, self.cfg, published(self.uri)
        self.templates = {}
        for group in plan_groups(catalog.rows, cfg, base.manifest):
            of = sample(catalog.rows, group, cfg)
            kept = kept_template(uri, base.manifest, group, "m", cfg)
            self.templates[group.name] = kept or train_template(uri, catalog.of(of), group, "m", cfg)[0]
        tasks = plan_shards(catalog.rows, self.templates, "m", cfg, base.manifest, uri)
        known = known_of(read_truth(uri, base.manifest), tasks, catalog.rows, cfg)
        queries = queries_of(catalog.rows, known, cfg)
        queries_ND = catalog.of(queries)
        if known:
            assert np.allclose(known.vectors_QD, queries_ND[: len(known.vectors_QD)])
        due = [t for t in tasks if t.kept is None or known is None or t.category not in known.categories]
        self.read = sum(t.rows.num_rows for t in due)
        shards = [t.kept for t in tasks if t.kept]
        shards += [built_shard(uri, t) or build_shard(uri, t, catalog.of(t.rows)) for t in tasks if not t.kept]

        def exact(some):
            return [exact_part(queries, queries_ND, t.category, t.rows, catalog.of(t.rows), cfg) for t in some]

        truth = truth_of(queries, queries_ND, exact(due), known, cfg)
        manifest = new_manifest(cfg, "m", EncoderConfig("tiny"), {}, list(self.templates.values()), shards, "")
        counts = dict(zip(*np.unique(catalog.rows["category"].to_pylist(), return_counts=True)))
        opened = open_manifest(uri, manifest)
        with patch.object(answers, "search", wraps=answers.search) as asked:
            found = answers.answers(opened, queries, queries_ND, known, cfg)
        self.asked = len(asked.call_args.args[-1]) / queries.num_rows if asked.call_count == 1 else 1
        as_the_index_answers(opened, queries, queries_ND, found, cfg)
        result = gate(opened, queries, queries_ND, [flat_of(truth)], counts, cfg, found=found.hits)
        assert result == gate(opened, queries, queries_ND, exact(tasks), counts, cfg), "what is known is exact"
        publish(uri, manifest, result, base, to_bytes(with_found(truth, found.hits, found.bound_Q)))
        return open_index(uri)

    def scratch(self, catalog: Catalog, uri: Path) -> Index:
        """The same templates, filled with the rows of now."""
        for template in self.templates.values():
            storage.write_bytes(
                template_uri(str(uri), template.name), storage.read_bytes(template_uri(self.uri, template.name))
            )
        tasks = plan_shards(catalog.rows, self.templates, "m", self.cfg)
        shards = [build_shard(str(uri), t, catalog.of(t.rows)) for t in tasks]
        manifest = new_manifest(self.cfg, "m", EncoderConfig("tiny"), {}, list(self.templates.values()), shards, "")
        return open_manifest(str(uri), manifest)


def as_the_index_answers(index: Index, queries: pa.Table, queries_ND: np.ndarray, found: Answers, cfg: IndexConfig) -> None:
    """What is kept is the beginning of all answers, and those of products follow from it."""
    whole = search(index, queries, queries_ND, cfg)
    for query, image in enumerate(queries["image_id"].to_pylist()):
        kept, hits = (some.filter(pc.equal(some["query"], query)) for some in (found.hits, whole))
        equal(kept, hits.slice(0, len(kept)))
        assert len(kept) == len(hits) or pc.sum(pc.not_equal(kept["image_id"], image)).as_py() >= cfg.recall_at
    vectors = pa.array(list(queries_ND.astype(np.float32)), pa.list_(pa.float32()))
    truth = queries.append_column("vector", vectors)
    asked = truth.append_column("kind", pa.repeat(SAMPLE, len(truth))).append_column("key", queries["image_id"])
    truth = with_found(truth_of(queries, queries_ND, [], None, cfg), found.hits, found.bound_Q)
    one, other = (ask(index, asked, cfg.recall_at, truth=some) for some in (truth, None))
    for mine, theirs in zip(one["answers"].to_pylist(), other["answers"].to_pylist()):
        assert [hit["image_id"] for hit in mine] == [hit["image_id"] for hit in theirs]


def equal(one: pa.Table, other: pa.Table) -> None:
    """Id for id; of a score the last digit depends on how many queries are asked at once."""
    assert one.drop_columns("score").equals(other.drop_columns("score"))
    assert np.allclose(one["score"], other["score"], atol=2e-6)


def same_answers(one: Index, other: Index, rng: np.random.Generator, catalog: Catalog) -> None:
    asked = np.concatenate([rng.standard_normal((9, DIM)), catalog.of(catalog.rows.slice(0, 3))]).astype(np.float32)
    some = pa.array(sorted(set(rng.choice(catalog.rows["product_id"].to_pylist(), 40))))
    assert one.manifest.rows_by_category() == other.manifest.rows_by_category()
    for categories in (None, *one.manifest.rows_by_category()):
        for per_product in (False, True):
            for k in (1, 7):
                equal(*(i.search(asked, k, categories, per_product) for i in (one, other)))
        masks = one.rows_of(some), other.rows_of(some)
        equal(*(i.search(asked, 5, categories, within=mask) for i, mask in zip((one, other), masks)))


_LONGER = [pytest.param(factory, marks=pytest.mark.slow) for factory in ("IVF8,Flat", "IVF8,PQ8", "Flat")]


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "PCA16,IVF8,SQfp16", "", *_LONGER])
def test_random_nights_answer_as_an_index_from_scratch(tmp_path, factory):
    rng = np.random.default_rng(len(factory))
    catalog = make_catalog({"tops": 150, "shoes": 60, "hats": 7}, images=2, seed=1)
    one = next(iter(catalog.vectors.values()))
    catalog.vectors.update(dict.fromkeys(list(catalog.vectors)[40:60], one))  # equal scores
    least = {"exact_below_rows": 500} if "PQ" in factory else {}  # one template for all: code books need 256 rows
    nights, layers, read, asked = Nights(str(tmp_path / "index"), replace(CFG, factory=factory, **least)), [], [], []
    for night in range(14):
        catalog = changed(catalog, rng, night) if night else catalog
        index = nights.run(catalog)
        layers.append(sum(s.layer for s in index.manifest.shards))
        read.append(nights.read / catalog.rows.num_rows)
        asked.append(nights.asked)
        whole = nights.scratch(catalog, tmp_path / f"scratch-{night}")
        same_answers(index, whole, rng, catalog)
        there = sorted(
            (r["product_id"], r["image_id"], s.info.category) for s in index.shards for r in s.rows_there.to_pylist()
        )
        assert there == sorted((r["product_id"], r["image_id"], r["category"]) for r in catalog.rows.to_pylist())
        same_answers(merged(index), whole, rng, catalog)
    assert max(layers) == 2
    assert any(s.dropped for s in index.manifest.shards)
    assert np.median(read[1:]) < 0.3, "vectors of the layers alone"
    assert np.median(asked[1:]) < 0.7, "hats are built anew each night"


def test_an_answer_that_the_index_does_not_give_is_not_kept(tmp_path):
    """Of one that was kept each tenth is asked: where it is another, all are."""
    nights, catalog = Nights(str(tmp_path / "index"), CFG), make_catalog({"tops": 150}, seed=1)
    index = nights.run(catalog)
    truth = read_truth(nights.uri, index.manifest)
    hits = flat_of(truth, FOUND)
    for wrong in (
        hits["product_id"].take(pa.array(np.roll(np.arange(len(hits)), 1))),
        pc.add(hits["score"], pa.scalar(0.01, pa.float32())),
    ):
        name = "score" if pa.types.is_floating(wrong.type) else "product_id"
        planted = hits.set_column(hits.column_names.index(name), name, wrong)
        queries, queries_ND = truth.select(["product_id", "image_id", "category"]), catalog.of(truth)
        exact = flat_of(truth), truth["bound"].to_numpy()
        known = Known(queries, queries_ND, *exact, planted, truth["found_bound"].to_numpy(), frozenset(), frozenset())
        found = answers.answers(index, queries, queries_ND, known, CFG)
        equal(found.hits, search(index, queries, queries_ND, CFG))
    right = replace(known, found=hits)
    with patch.object(answers, "search", wraps=answers.search) as asked:
        answers.answers(index, queries, queries_ND, right, CFG)
    assert [len(call.args[-1]) for call in asked.call_args_list] == [2]


def test_too_many_changes_build_the_category_anew(tmp_path):
    catalog = make_catalog({"tops": 200})
    nights = Nights(str(tmp_path), replace(CFG, factory="IVF8,SQ8", layer_share=0.1))
    first = nights.run(catalog)
    fewer = nights.run(Catalog(catalog.rows.slice(15), catalog.vectors))
    assert [s.name for s in fewer.manifest.shards] == [s.name for s in first.manifest.shards]
    assert fewer.manifest.num_rows == sum(s.num_there for s in fewer.manifest.shards) == 185
    anew = nights.run(Catalog(catalog.rows.slice(25), catalog.vectors))
    assert not any(s.layer or s.dropped for s in anew.manifest.shards)
    assert anew.manifest.num_rows == 175


def test_what_was_dropped_stays_dropped_and_comes_back_in_the_layer(tmp_path):
    catalog = make_catalog({"tops": 200})
    nights = Nights(str(tmp_path), replace(CFG, factory="IVF8,SQ8"))
    nights.run(catalog)
    nights.run(Catalog(catalog.rows.slice(2), catalog.vectors))
    back = nights.run(catalog)
    assert sum(s.dropped.num_rows for s in back.manifest.shards if s.dropped) == 2
    (layer,) = [s for s in back.shards if s.info.layer]
    assert layer.rows["product_id"].to_pylist() == ["tops-00000", "tops-00001"]
    assert back.manifest.num_rows == 200


def test_small_categories_and_a_share_of_0_have_no_layers(tmp_path):
    catalog = make_catalog({"tops": 200})
    for n, cfg in enumerate([replace(CFG, layer_from_rows=201), replace(CFG, layer_share=0.0)]):
        nights = Nights(str(tmp_path / str(n)), cfg)
        nights.run(catalog)
        after = nights.run(Catalog(catalog.rows.slice(1), catalog.vectors))
        assert not any(s.layer or s.dropped for s in after.manifest.shards)


def test_a_damaged_list_of_dropped_rows_is_found_and_made_again(tmp_path):
    catalog = make_catalog({"tops": 200})
    nights = Nights(str(tmp_path), replace(CFG, factory="IVF8,SQ8"))
    nights.run(catalog)
    fewer = Catalog(catalog.rows.slice(2), catalog.vectors)
    index = nights.run(fewer)
    file = Path(damaged := next((tmp_path / "dropped").iterdir()))
    file.write_bytes(bytes(len(file.read_bytes())))
    assert damaged_file(str(tmp_path), index.manifest) == str(damaged)
    with pytest.raises(JobFailed, match=r"dropped/\w+\.bits: damaged"):
        open_index(str(tmp_path)).search(np.ones((1, 32), np.float32), 3)
    assert nights.run(fewer).manifest.num_rows == 198
    assert damaged_file(str(tmp_path), published(str(tmp_path)).manifest) is None


def test_garbage_is_collected_but_not_what_is_dropped(tmp_path):
    catalog = make_catalog({"tops": 200})
    nights = Nights(str(tmp_path), replace(CFG, factory="IVF8,SQ8"))
    for n in range(5):
        nights.run(Catalog(catalog.rows.slice(n), catalog.vectors))
    before = len(list((tmp_path / "dropped").iterdir()))
    collect_garbage(str(tmp_path), keep_generations=1, young_s=0)
    assert 0 < len(list((tmp_path / "dropped").iterdir())) < before
    assert open_index(str(tmp_path)).manifest.num_rows == 196


def test_the_job_of_before_goes_on(tmp_path):
    """A version without layers, and without what its gate knew."""
    catalog = make_catalog({"tops": 200})
    run_job(str(tmp_path), catalog, replace(CFG, factory="IVF8,SQ8"), model_version="m")
    assert published(str(tmp_path)).manifest.truth == ""
    nights = Nights(str(tmp_path), replace(CFG, factory="IVF8,SQ8"))
    after = nights.run(Catalog(catalog.rows.slice(1), catalog.vectors))
    assert sum(s.dropped.num_rows for s in after.manifest.shards if s.dropped) == 1
    assert nights.read == 199
    nights.run(Catalog(catalog.rows.slice(2), catalog.vectors))
    assert nights.read == 0
