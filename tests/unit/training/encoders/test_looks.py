"""Pairs of looks: which posts are dressed alike, and encoders that learn it from them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tests.cluster.paired import LINEAGE, embed, jpeg
from tests.unit.models.layouts import make
from tests.unit.style.conftest import filled
from w2w import config as configuration
from w2w import schema
from w2w.errors import UsageError
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder, model_version
from w2w.models.looks import look_version
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.sink import append_rows
from w2w.training import job
from w2w.training.encoders.config import HEAD, PairConfig
from w2w.training.encoders.flow import measure_pictures
from w2w.training.encoders.looks import look_pairs
from w2w.training.loop import fit

EXAMPLE = Path(__file__).parents[4] / "jobs" / "examples" / "looks.yaml"
GROUPS, OF_EACH = 8, 4


def post(image: str, url: str = "", tags: str = "", style: str | None = None) -> dict:
    return {"image_id": image, "url": url or f"https://x/{image}", "product_ids": list(tags), "style": style}


def found(posts: list[dict], clusters: dict | None = None, **config) -> set[frozenset[str]]:
    rows = look_pairs(posts, PairConfig(of="looks", **config), clusters or {}).to_pylist()
    assert len({r["pair_id"] for r in rows}) == len(rows)
    assert not {r["garment_id"] for r in rows} & {r["image_id"] for r in rows}
    return {frozenset((r["garment_id"], r["image_id"])) for r in rows}


def test_what_posts_have_in_common_makes_pairs():
    posts = [
        post("a", "u"),
        post("b", "u"),
        post("c", tags="123"),
        post("d", tags="234"),
        post("e", tags="4"),
        post("f", style="s"),
    ]
    posts += [post("g", style="s"), post("h")]
    by_page, by_tags, by_style = ({frozenset(p)} for p in ("ab", "cd", "fg"))
    assert found(posts, same=["post"]) == by_page
    assert found(posts, same=["products"]) == by_tags
    assert found(posts, same=["style"]) == by_style
    assert found(posts, same=["post", "style", "products"]) == by_page | by_tags | by_style
    assert found(posts, same=["products"], shared=3) == set()
    one = look_pairs(posts, PairConfig(of="looks", same=["products"], shared=1), {}).to_pylist()
    assert {r["product_id"] for r in one} == {"c"}  # c, d and, by way of d, e
    assert found(posts, {"a": "x", "b": "x"}, same=["post"]) == set()  # the same picture twice is no pair
    assert found([]) == set()
    assert found([post("a", tags="".join(map(chr, range(97, 111)))), post("b", tags="abc")], same=["products"]) == set()


def test_a_group_of_many_has_few_pairs_of_each():
    many = [post(f"i{n:03}", "u") for n in range(41)]
    rows = look_pairs(many, PairConfig(of="looks", each=2), {}).to_pylist()
    anchors = [r["garment_id"] for r in rows]
    assert len(set(anchors)) == 21
    assert {anchors.count(a) for a in anchors} == {2}
    assert {r["image_id"] for r in rows} == {p["image_id"] for p in many} - set(anchors)
    assert rows == look_pairs(many[::-1], PairConfig(of="looks", each=2), {}).to_pylist()
    with pytest.raises(UsageError, match=r"pairs\.same=\['colour'\]"):
        PairConfig(same=["colour"])
    with pytest.raises(UsageError, match=r"pairs\.of=hats: must be garments or looks"):
        PairConfig(of="hats")


def picture(group: int, number: int, whole: bool = False) -> bytes:
    """A group's stripes in colours of any kind; ``whole``: on a photo with a ground around it."""
    rng = np.random.default_rng([group, number, 1])
    colours = rng.integers(0, 256, (2, 3))
    at = np.arange(48)
    stripes = ((at[:, None] * (group % 3) + at[None] * (group // 3 + 1)) // 6) % 2
    image = colours[stripes].astype(np.uint8)
    return jpeg(np.pad(image, ((8, 8), (30, 30), (0, 0)), constant_values=128) if whole else image)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """Looks of groups that are labelled with a style; the person is cut out of all but every third."""
    where, rows = (
        str(tmp_path_factory.mktemp("looks")),
        {t: [] for t in (schema.POSTS, schema.IMAGES, schema.LOOKS, schema.SPLITS)},
    )
    for group in range(3 * GROUPS):
        for number in range(OF_EACH):
            name, split = f"{group}-{number}", ("train", "val", "test")[group % 3]
            cut, about = number % 3 != 2, {"stage_version": "d", "crop_source": "person"}
            known = {"post_id": name, "image_id": f"i{name}", "style": f"s{group}", "active": True}
            rows[schema.POSTS].append(filled(schema.POSTS, **known))
            photo = picture(group, number, whole=cut)
            rows[schema.IMAGES].append(filled(schema.IMAGES, image_id=f"i{name}", bytes=photo, width=108, height=64))
            crop = picture(group, number) if cut else None
            rows[schema.LOOKS].append(filled(schema.LOOKS, image_id=f"i{name}", crop=crop, **about))
            rows[schema.SPLITS].append(filled(schema.SPLITS, owner_id=name, owner_kind="post", split=split))
    rows[schema.POSTS].append(filled(schema.POSTS, post_id="gone", image_id="igone", style="s0", active=False))
    for table, filling in rows.items():
        lineage = LINEAGE if table is not schema.LOOKS else LINEAGE.__class__("detect", "r", "detect", "d", {}, {}, "x")
        append_rows(where, Output(table), pa.Table.from_pylist(filling, schema=table.schema), lineage)
    return where


@pytest.fixture(scope="module")
def siglip(tmp_path_factory) -> EncoderConfig:
    return EncoderConfig(make("siglip", tmp_path_factory.mktemp("siglip") / "model"), device="cpu")


def plan(store: str, encoder: EncoderConfig, **more):
    given = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    given |= {"store": store, "encoder": {"name": encoder.name, "device": "cpu"}, "train": given["train"] | {"steps": 60}}
    given["learn"] |= {"batch_pairs": GROUPS}
    return job._plan(configuration.build(job.Config, given | more, "w2w train"), store)


def trained(made, folder: Path) -> list[dict]:
    history: list[dict] = []
    training = made.training(0, 1)
    fit(training, lambda told, save: history.append(told))
    training.recipe.save(training.recipe.network, folder)
    return history


def test_the_example_trains_siglip_on_looks_and_projects_to_128(store, siglip, tmp_path):
    made = plan(store, siglip)
    halves = GROUPS * OF_EACH // 2
    assert made.inspected.num_pairs == {"train": 2 * halves, "val": 2 * halves, "test": 2 * halves}  # two anchors x two others
    assert made.rows.out == 6 * halves
    assert made.identity() == plan(store, siglip).identity()
    assert made.identity() != plan(store, siglip, pairs={"of": "looks", "same": ["style"], "each": 1}).identity()
    trained(made, tmp_path / "out")
    encoder = EncoderConfig(str(tmp_path / "out"), device="cpu")
    assert load_encoder(encoder).dim == 128
    after, before = (measure_pictures(made.table, one, 500) for one in (encoder, siglip))
    assert after.num_pictures == halves  # the gallery: no anchor is in it
    assert after.relevant_QK[:, 0].mean() > before.relevant_QK[:, 0].mean() + 0.1
    assert made.use(tmp_path).startswith("w2w embed --of=looks ")


def test_a_head_learns_on_the_vectors_of_looks(store, siglip, tmp_path):
    with pytest.raises(UsageError, match="'w2w embed --of=looks' first"):
        plan(store, siglip, recipe=HEAD)
    crops, pictures = (
        {row["image_id"]: row[column] for row in delta.read(store, table, ["image_id", column]).to_pylist()}
        for table, column in ((schema.LOOKS, "crop"), (schema.IMAGES, "bytes"))
    )
    pictures |= {image: crop for image, crop in crops.items() if crop}
    version = look_version(model_version(siglip), "d")
    embed(store, pictures, "look", siglip, version)
    made = plan(store, siglip, recipe=HEAD)
    trained(made, tmp_path / "head")
    assert load_encoder(EncoderConfig(str(tmp_path / "head"), device="cpu")).dim == 128


def test_what_cannot_be_learnt_from_looks_is_said(store, siglip):
    for options, match in (
        ({"sources": ["own"]}, "--sources: is of table `pairs`"),
        ({"learn": {"negatives": 2}}, r"--learn\.negatives: is of table `pairs`"),
        ({"pairs": {"of": "looks", "same": ["products"]}}, "no two posts of the train split have products in common"),
        ({"pairs": {"of": "looks", "shared": 0}}, "pairs.shared=0: must be at least 1"),
    ):
        with pytest.raises(UsageError, match=match):
            plan(store, siglip, **options)
