"""What `w2w train` is to train, before it trains: a run is finished only where nothing that it read has changed, and what
nothing can be learnt from is a sentence."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.cluster.paired import LINEAGE, Shot, embed, fill, jpeg
from tests.unit.models.test_encoder import save
from tests.unit.training.detectors.samples import photos as drawn_photos
from tests.unit.training.detectors.samples import row as detection
from tests.unit.training.outfits.test_flow import row, write, write_embeddings
from w2w import schema
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.images.lookbook import file_name
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.table import delta, snapshot
from w2w.table.parts import Output
from w2w.table.sink import append_rows
from w2w.training.config import LoopConfig
from w2w.training.detectors.config import TrainConfig, start_digest
from w2w.training.detectors.flow import list_photos, rows_digest
from w2w.training.detectors.ours import Ours
from w2w.training.encoders import flow as encoders
from w2w.training.encoders.config import ENCODER, HEAD, HeadConfig, LearnConfig
from w2w.training.encoders.flow_plan import EncoderPlan
from w2w.training.lookbook.config import SIAMESE, LookbookConfig
from w2w.training.lookbook.flow_plan import LookbookPlan
from w2w.training.outfits.config import OutfitsConfig
from w2w.training.outfits.flow_plan import OutfitPlan

LEARN = LearnConfig(batch_pairs=4, head=HeadConfig(dims=[8]))
COLOURS = np.random.default_rng(0).integers(0, 256, (99, 3))


def picture(number: int, worn: int = 0) -> bytes:
    noise = np.random.default_rng(worn).normal(0, 20, (40, 30, 3)) if worn else 0
    return jpeg(np.clip(COLOURS[number] + np.zeros((40, 30, 3)) + noise, 0, 255).astype(np.uint8))


def shots(splits: list[str], product=lambda i: f"p{i}", shown=lambda i: i) -> list[Shot]:
    return [Shot(product(i), "top", s, picture(i, worn=i + 1), picture(shown(i))) for i, s in enumerate(splits)]


USUAL = shots(["train"] * 6 + ["val"] * 2 + ["test"] * 2)


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> EncoderConfig:
    folder = tmp_path_factory.mktemp("vit")
    save(folder, "vit")
    return EncoderConfig(name=str(folder))


def embedded(store: str, base: EncoderConfig, only=lambda owner: True) -> str:
    for table, column in ((schema.GARMENTS, schema.CROP), (schema.IMAGES, schema.BYTES)):
        rows = zip(*(c.to_pylist() for c in delta.read(store, table, [table.key[0], column]).columns))
        embed(store, {owner: data for owner, data in rows if only(owner)}, "x", base)
    return store


def append(store: str, table: schema.Table, *rows: dict) -> None:
    full = [{f.name: None if f.nullable else "" for f in table.schema} | r for r in rows]
    append_rows(store, Output(table), pa.Table.from_pylist(full, schema=table.schema), LINEAGE)


def plan(store: str, base: EncoderConfig, recipe: str = HEAD, learn: LearnConfig = LEARN, **more) -> EncoderPlan:
    given = {"workers": Workers(), "sources": None, "limit": None, "test_pairs": 100} | more
    return EncoderPlan.of(store, recipe, base, learn, LoopConfig(steps=4), **given)


def pairs(store: str) -> list[dict]:
    return sorted(delta.read(store, schema.PAIRS, schema.PAIRS.schema.names).to_pylist(), key=lambda p: p["product_id"])


def negative(pair: dict, other: dict) -> dict:
    found = {"rank": 1, "product_id": other["product_id"], "image_id": other["image_id"], "category": "top", "score": 0.5}
    return {"pair_id": pair["pair_id"], "negatives": [found], "index_version": "v"}


def more_garments(store: str, base) -> None:
    """Other crops of the same garments."""
    rows = delta.read(store, schema.GARMENTS, schema.GARMENTS.schema.names).to_pylist()
    write(store, schema.GARMENTS, [r | {"crop": picture(i, 50)} for i, r in enumerate(rows)])


def more_images(store: str, base) -> None:
    rows = delta.read(store, schema.IMAGES, schema.IMAGES.schema.names).to_pylist()
    write(store, schema.IMAGES, [r | {"bytes": picture(50 + i)} for i, r in enumerate(rows)])


def more_pairs(store: str, base) -> None:
    p = pairs(store)[0]
    append(store, schema.PAIRS, p | {"pair_id": "another", "product_id": "p9"})


def more_vectors(store: str, base) -> None:
    rows = delta.read(store, schema.EMBEDDINGS, schema.EMBEDDINGS.schema.names).to_pylist()
    moved = [r | {"vector": [v + 0.01 for v in r["vector"]]} for r in rows]
    write_embeddings(store, moved, "overwrite")


def more_negatives(store: str, base) -> None:
    ps = pairs(store)
    write(store, schema.NEGATIVES, [negative(ps[0], ps[2]), negative(ps[1], ps[2])])


def other_duplicates(store: str, base) -> None:
    images = [p["image_id"] for p in pairs(store)]
    rows = [{"image_id": i, "cluster_id": images[0], "cluster_size": 2} for i in images[:2]]
    append(store, schema.DUPLICATES, *rows)


def other_weights(store: str, base) -> None:
    file = Path(base.name, "model.safetensors")
    save_file({name: v + 0.01 for name, v in load_file(file).items()}, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        *((HEAD, c) for c in (more_pairs, more_vectors, more_negatives, other_duplicates, other_weights)),
        *((ENCODER, c) for c in (more_pairs, more_garments, more_images, more_negatives, other_duplicates, other_weights)),
    ],
)
def test_a_run_of_encoders_is_another_when_something_that_it_reads_changes(tmp_path, vit, recipe, change):
    own = shutil.copytree(vit.name, tmp_path / "vit") if change is other_weights else vit.name
    base = EncoderConfig(name=str(own))
    store = embedded(fill(str(tmp_path / "store"), USUAL), base)
    ps = pairs(store)
    write(store, schema.NEGATIVES, [negative(ps[0], ps[1])])
    learn = replace(LEARN, negatives=2)
    before = plan(store, base, recipe, learn).identity()
    assert plan(store, base, recipe, learn).identity() == before
    # what is not read changes nothing: pictures, vectors and garments of others, and pairs of the test
    append(store, schema.IMAGES, {"image_id": "x", "bytes": picture(70), "width": 1, "height": 1, "phash": 0, "fetched_at": 0})
    append(store, schema.EMBEDDINGS, {"owner_id": "x", "model_version": model_version(base), "vector": [1.0]})
    test = next(p for p in ps if p["split"] == "test")
    append(store, schema.PAIRS, test | {"pair_id": "more of the test", "product_id": "p99"})
    assert plan(store, base, recipe, learn).identity() == before
    change(store, base)
    if change is other_weights and recipe == HEAD:
        embedded(store, base)  # by the new weights
    assert plan(store, base, recipe, learn).identity() != before
    assert plan(store, base, recipe, replace(learn, stay=0.1)).identity() != plan(store, base, recipe, learn).identity()


def test_workers_read_the_tables_as_they_were_when_the_run_was_planned(tmp_path, vit):
    store = embedded(fill(str(tmp_path), USUAL), vit)
    planned = plan(store, vit)
    more_vectors(store, vit)
    more_pairs(store, vit)
    rows = planned.training(0, 1).batches(0)
    again = plan(store, vit)
    assert {len(r.anchor) for r in rows} == {32}
    assert again.inspected.num_pairs["train"] == planned.inspected.num_pairs["train"] + 1
    now, then = (encoders._vectors(p.table, p.table.read("train"), vit, 0)[0] for p in (again, planned))
    assert len(now) == len(then) + 1
    assert not np.allclose(now[0].anchor, then[0].anchor, atol=0.005)


def test_negatives_have_the_codes_of_all_products_in_every_worker(tmp_path, vit):
    """A negative of one worker may be the positive of another's anchor: all columns are every anchor's."""
    store = embedded(fill(str(tmp_path), USUAL), vit)
    ps = [p for p in pairs(store) if p["split"] == "train"]
    write(store, schema.NEGATIVES, [negative(p, ps[(i + 1) % 6]) for i, p in enumerate(ps)])
    append(store, schema.DUPLICATES, *({"image_id": p["image_id"], "cluster_id": "twins", "cluster_size": 2} for p in ps[:2]))
    everything = plan(store, vit).table.read("train")
    for rank in range(2):
        mine = everything.of_rank(rank, 2)
        assert sorted(set(mine.products_N.tolist())) == [rank, rank + 2, rank + 4]
        rows, _ = encoders._vectors(plan(store, vit).table, mine, vit, 1)
        for r in rows:
            ((_, product, cluster),) = r.negatives
            assert product == (r.product + 1) % 6
            assert everything.clusters_N[everything.products_N == product].tolist() == [cluster]


@pytest.mark.parametrize(
    ("made", "recipe", "more", "said"),
    [
        (shots(["train", "val", "test"]), ENCODER, {}, "the train pairs are of 1 products: at least two are needed"),
        (shots(["train"] * 4 + ["val", "test"], lambda i: "p"), HEAD, {}, "are of 1 products"),
        (shots(["train"] * 3 + ["val", "test"]), HEAD, {"workers": Workers(num_workers=2)}, "num_workers=2: for each of them"),
        (shots(["train"] * 4 + ["val", "test"], shown=lambda i: 0), HEAD, {}, "are of 1 pictures"),
        (shots(["train"] * 4 + ["val"]), HEAD, {}, "no pairs of split 'test'"),
        (shots(["train"] * 4 + ["test"]), ENCODER, {}, "no pairs of split 'val'"),
        (USUAL, HEAD, {"learn": replace(LEARN, negatives=1)}, "run 'w2w harden' first"),
        (USUAL, HEAD, {"limit": 1}, "are of 1 products"),
    ],
)
def test_what_nothing_can_be_learnt_from_is_a_sentence(tmp_path, vit, made, recipe, more, said):
    store = embedded(fill(str(tmp_path), made), vit)
    with pytest.raises(UsageError, match=said):
        plan(store, vit, recipe, **more)


def test_pairs_that_mining_left_out_by_permission_are_named(tmp_path, vit, monkeypatch):
    store = embedded(fill(str(tmp_path), shots(["train"] * 4 + ["val"])), vit)
    said = {"stage": "mine", "detail": "", "source": None, "rejected_at": 0, "run_id": "r"}
    last = {"stage_version": "of the pairs that are there"}
    monkeypatch.setattr(snapshot, "current", lambda store, table: last)
    codes = [("a", "not_permitted", last), ("b", "not_permitted", last), ("c", "no_vector", last)]
    codes += [("d", "not_permitted", {"stage_version": "of another night"})]
    append(store, schema.REJECTS, *(said | of | {"key": key, "code": code} for key, code, of in codes))
    with pytest.raises(UsageError, match=r"no pairs of split 'test'.*; 2 pairs may not be used for training"):
        plan(store, vit)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("recipe", "lacks"), [(HEAD, schema.EMBEDDINGS), (ENCODER, schema.IMAGES), (ENCODER, schema.GARMENTS)])
def test_a_split_without_pictures_or_vectors_is_a_sentence(tmp_path, vit, split, recipe, lacks):
    store = embedded(fill(str(tmp_path), USUAL), vit)
    gone = {i for p in pairs(store) if p["split"] == split for i in (p["image_id"], p["garment_id"])}
    if lacks is schema.EMBEDDINGS and split == "test":
        lacks = schema.IMAGES  # the test is on pictures
    kept = [r for r in delta.read(store, lacks, lacks.schema.names).to_pylist() if r[lacks.key[0]] not in gone]
    if lacks is schema.EMBEDDINGS:
        write_embeddings(store, kept, "overwrite")
    else:
        write(store, lacks, kept)
    with pytest.raises(UsageError, match=f"split '{split}'"):
        plan(store, vit, recipe)


def test_pairs_without_vectors_are_counted(tmp_path, vit):
    store = embedded(fill(str(tmp_path), USUAL), vit, lambda owner: owner != pairs(str(tmp_path))[0]["image_id"])
    found = plan(store, vit)
    assert found.inspected.num_pairs == {"train": 5, "val": 2, "test": 2}
    assert (found.rows.read, found.rows.out, found.rows.rejects) == (10, 9, {"no_vector": 1})
    assert found.facts()["left_out"] == 1


@pytest.mark.parametrize(("vector", "said"), [([float("nan")] * 32, "NaN or infinity"), ([1.0] * 31, "must have one length")])
def test_vectors_that_are_no_numbers_or_of_two_lengths_are_a_sentence(tmp_path, vit, vector, said):
    store = embedded(fill(str(tmp_path), USUAL), vit)
    rows = delta.read(store, schema.EMBEDDINGS, schema.EMBEDDINGS.schema.names).to_pylist()
    wrong = next(p for p in pairs(store) if p["split"] == "train")["image_id"]
    write_embeddings(store, [r | ({"vector": vector} if r["owner_id"] == wrong else {}) for r in rows], "overwrite")
    with pytest.raises(UsageError, match=said):
        plan(store, vit)
    plan(store, vit, ENCODER)  # does not read them


def test_the_gallery_is_all_products_of_the_test(tmp_path, vit):
    store = embedded(fill(str(tmp_path), USUAL), vit)
    table = plan(store, vit, test_pairs=1).table
    assert sorted(set().union(*table.gallery().values())) == ["p8", "p9"]
    alone = {"image_id": "alone", "bytes": picture(60), "width": 1, "height": 1, "phash": 0, "fetched_at": 0}
    append(store, schema.IMAGES, alone)
    owners = [("p8", "product", "test"), ("q", "product", "test"), ("p0", "product", "train"), ("r", "post", "test")]
    given = [{"owner_id": o, "owner_kind": k, "split": s, "component_id": o, "component_size": 1} for o, k, s in owners]
    append(store, schema.SPLITS, *given)
    shared = next(p for p in pairs(store) if p["product_id"] == "p9")["image_id"]
    chosen = [
        {"product_id": p, "image_id": i, "score": 1.0, "num_images": 1} for p, i in (("q", "alone"), ("p8", shared), ("r", "r"))
    ]
    append(store, schema.REPRESENTATIVES, *chosen)
    shown = plan(store, vit).table.gallery()
    assert shown["alone"] == {"q"}
    assert shown[shared] == {"p9", "p8"}
    assert len(shown) == 3
    found = encoders.measure_pictures(plan(store, vit).table, vit, 1)
    assert (found.relevant_QK.shape, found.names_Q.tolist(), found.num_pictures) == ((1, 3), ["top"], 3)
    (garment,), (nearest,), (sought,) = found.garments, found.found, found.sought
    (pair,) = [p for p in pairs(store) if p["garment_id"] == garment]
    assert sought == pair["image_id"]
    assert set(nearest) == set(shown)
    assert [pair["product_id"] in shown[image] for image in nearest] == found.relevant_QK[0].tolist()


@pytest.fixture
def outfits(tmp_path, vit) -> str:
    store, rng, rows = str(tmp_path), np.random.default_rng(0), []
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for i in range(count):
            names = [f"{slot}{split}{i}" for slot in ("top", "bottom", "shoes")]
            other = f"shoes{split}{(i + 1) % count}"
            rows += [row(f"{split}{i}", names, split), row(f"{split}{i}m", [*names[:2], other], split, f"{split}{i}")]
    for r in rows:
        for item in r["items"]:
            item["slot"] = next(s for s in ("top", "bottom", "shoes") if item["item_id"].startswith(s))
    write(store, schema.OUTFITS, rows)
    names = sorted({item["item_id"] for r in rows for item in r["items"]})
    delta.create_table(store, schema.EMBEDDINGS)
    given = {"owner_kind": "slot", "model_version": model_version(vit)}
    write_embeddings(store, [given | {"owner_id": n, "vector": rng.normal(size=4).tolist()} for n in names])
    return store


def scorer(store: str, base: EncoderConfig, workers: int = 1) -> OutfitPlan:
    config = OutfitsConfig(batch_outfits=4, num_answers=2)
    return OutfitPlan.of(store, base, config, LoopConfig(steps=4), Workers(num_workers=workers), None, None, False)


def test_a_run_of_a_scorer_is_another_when_its_outfits_or_vectors_change(outfits, vit):
    before = scorer(outfits, vit).identity()
    assert scorer(outfits, vit).identity() == before
    append(outfits, schema.QUESTIONS, {"source": "polyvore", "items": [], "answers": [], "right": 0})  # of others
    assert scorer(outfits, vit).identity() == before
    planned = scorer(outfits, vit)
    more_vectors(outfits, vit)
    assert scorer(outfits, vit).identity() != before
    assert planned.table.read()[0]["train"].vectors_ND[0, 0] != scorer(outfits, vit).table.read()[0]["train"].vectors_ND[0, 0]
    rows = delta.read(outfits, schema.OUTFITS, schema.OUTFITS.schema.names).to_pylist()
    now = scorer(outfits, vit).identity()
    write(outfits, schema.OUTFITS, [r for r in rows if r["outfit_id"] not in ("train0", "train0m")])
    assert scorer(outfits, vit).identity() != now
    with pytest.raises(UsageError, match="num_workers=3: there are 5 worn outfits"):
        scorer(outfits, vit, 3)


def test_a_run_on_a_folder_is_another_when_a_picture_changes_behind_its_name(tmp_path, vit):
    for product in range(10):
        for kind in range(3):
            image = Image.fromarray(np.full((20, 20, 3), 20 * product + kind, np.uint8))
            image.save(tmp_path / file_name(product, 3 * product + kind, clean=kind == 0))
    config = LookbookConfig(str(tmp_path), 2, 0.3, 0.2)

    def identity(workers: int = 1) -> list[object]:
        return LookbookPlan.of(SIAMESE, config, LoopConfig(steps=4), vit, Workers(num_workers=workers), None, False).identity()

    before = identity()
    assert identity() == before
    trained = LookbookPlan.of(SIAMESE, config, LoopConfig(steps=4), vit, Workers(), None, False).data.read()[0]
    for file in (trained[0].clean, trained[0].worn[0]):
        Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).save(file)
        assert identity() != before
        before = identity()
    with pytest.raises(UsageError, match="num_workers=9: there are only"):
        identity(9)


def annotated(number: int) -> dict:
    return detection(drawn_photos(12)[number], "test" if number >= 10 else "train")


def test_a_run_of_a_detector_is_another_when_boxes_pixels_or_start_weights_change(tmp_path):
    store = str(tmp_path / "store")

    def commit(*rows: dict, version: str = "v") -> None:
        full = [r | {"stage_version": version} for r in rows]
        table = pa.Table.from_pylist(full, schema=schema.DETECTIONS.schema)
        append_rows(store, Output(schema.DETECTIONS), table, replace(LINEAGE, stage_version=version, run_id=version))

    def told() -> str:
        photos = list_photos(store, None, 0.2)
        return rows_digest(photos, photos.train + photos.val)

    commit(*(annotated(i) for i in range(12)))
    before = told()
    assert told() == before
    commit(annotated(11) | {"key": "drawn/of the test"}, version="other photos")
    assert told() == before
    boxes = annotated(0)
    boxes["objects"] = boxes["objects"][:1]
    commit(boxes, version="other boxes")
    assert told() != before
    # weights: of a folder, of a file, of the package
    folder = tmp_path / "start"
    Ours(TrainConfig(height_px=64, width_px=64)).save(Ours(TrainConfig(height_px=64, width_px=64)).network, folder)
    digests = [start_digest("ours"), start_digest(f"ours:{folder}")]
    assert digests == [start_digest("ours"), start_digest(f"ours:{folder}")]
    (tmp_path / "copy").mkdir()
    for file in folder.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    assert start_digest(f"ours:{tmp_path / 'copy'}") == digests[1]  # the same weights elsewhere
    weights = load_file(folder / "model.safetensors")
    save_file({k: v + 1 if v.is_floating_point() else v for k, v in weights.items()}, folder / "model.safetensors")
    yolo = tmp_path / "yolo.pt"
    for content in (b"one", b"two!"):
        yolo.write_bytes(content)
        digests.append(start_digest(f"yolo:{yolo}"))
    digests += [start_digest(f"ours:{folder}"), start_digest("yolo:yolo11n.yaml"), start_digest("yolo:yolo11s.yaml")]
    assert len(set(digests)) == len(digests)
