"""convert and compose: public sets become rows once, and neither wipes out the other's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bs4 import BeautifulSoup

from tests.unit.mining.test_sets import IN_SHOP, deepfashion2, in_shop_lines, polyvore, street2shop
from w2w import ids, schema
from w2w.engine.cluster import RayConfig
from w2w.errors import JobFailed, UsageError
from w2w.garments.stage import to_jpeg
from w2w.images.decode import decode
from w2w.mining.outfits import job as compose
from w2w.mining.sets import SetConfig
from w2w.mining.sets import job as convert
from w2w.models import job as embed
from w2w.stage import Counts, Pool
from w2w.table import delta, snapshot
from w2w.table.current import current_posts
from w2w.table.parts import Output, write_part
from w2w.table.sink import Lineage, append_rows
from w2w.web.fetch import FetchConfig

RAY = RayConfig(num_cpus=2)
NUM_PHOTOS = 40


def picture(seed: int, height: int = 100, width: int = 80) -> bytes:
    return to_jpeg(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def rows(store: str, table: schema.Table, **partition: str) -> list[dict]:
    found = delta.read(store, table, table.schema.names, **partition).to_pylist()
    return sorted(found, key=lambda row: tuple(row[k] for k in table.key))


def settings(store: str, kind: str, path: Path, **options) -> convert.Config:
    chosen = SetConfig(kind, str(path), **options)
    return convert.Config(store=store, set=chosen, pool=Pool(workers=1, batch_rows=2), max_reject_rate=1, item_rows=3, ray=RAY)


def codes(store: str) -> dict[str, str]:
    return {r[schema.KEY].partition("@")[0]: r[schema.REJECT_CODE] for r in rows(store, schema.REJECTS, stage="convert")}


def test_a_picture_is_one_row_whatever_its_lines_say(tmp_path):
    """A line twice, one picture in train and gallery, one picture of two items; and nothing is written for a set that lies."""
    store, root = str(tmp_path / "store"), tmp_path / "set"
    _, side, _, query, gallery, _ = IN_SHOP
    in_shop_lines(root, f"{gallery} id_00000182 gallery", f"{gallery} id_00000999 gallery", f"{side} id_00000002 gallery")
    for number, name in enumerate(IN_SHOP):
        (root / "Img" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "Img" / name).write_bytes(picture(number, 300, 300))
    boxes = root / "Anno/list_bbox_inshop.txt"
    good = boxes.read_text()
    boxes.write_text(good.replace("072", "nan", 1))
    config = settings(store, "in-shop", root)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"list_bbox_inshop\.txt, line 3: the box is .*nan.*, not 4 numbers"):
            convert.main(replace(config, dry_run=dry_run))
    assert not any(Path(store).rglob("*.parquet"))
    boxes.write_text(good)
    done = convert.main(config)
    products, posts = rows(store, schema.PRODUCTS), rows(store, schema.POSTS)
    assert len(products) == len({p[schema.PRODUCT_ID] for p in products}) == 4
    assert [p[schema.POST_ID] for p in posts] == sorted(f"in-shop/{name}" for name in (side, query))
    assert done.counts.read == done.counts.out + done.counts.rejected
    refused = [r for r in rows(store, schema.REJECTS) if r[schema.REJECT_CODE] == "duplicate_key"]
    assert len(refused) == len({r[schema.KEY] for r in refused}) == 3 + 2, "2 products, 1 photo, the pairs of the second record"
    told = [r[schema.REJECT_DETAIL] for r in refused]
    assert f"'in-shop/{gallery}' came before; here it is a picture of 'in-shop/id_00000999'" in told
    again = convert.main(config)
    assert (again.counts.read, again.skipped) == (0, 9)


def test_the_shops_own_photos_are_posts(tmp_path):
    store, listed = str(tmp_path / "store"), tmp_path / "campaign.csv"
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "3.jpg").write_bytes(b"<html>")
    listed.write_text("photo,products\n1.jpg,p1 p2\n2.jpg,\n3.jpg,\ngone.jpg,\n,p1\n")
    config = settings(store, "posts", listed)
    assert convert.main(replace(config, dry_run=True)).pending_photos == 5
    first = convert.main(config)
    assert (first.counts.read, first.counts.out, first.counts.rejected) == (5, 2, 3)
    assert codes(store) == {
        "posts/3.jpg": "not_an_image",
        "posts/gone.jpg": "not_found",
        "posts/campaign.csv:6": "missing_field",
    }
    posts = {r[schema.POST_ID]: r for r in rows(store, schema.POSTS)}
    assert {name: row[schema.PRODUCT_IDS] for name, row in posts.items()} == {"posts/1.jpg": ["p1", "p2"], "posts/2.jpg": []}
    assert len(rows(store, schema.IMAGES)) == 2
    listed.write_text(listed.read_text().replace("2.jpg,", "2.jpg,p3"))
    again = convert.main(config)
    assert (again.counts.out, again.skipped >= 1) == (1, True)
    [newest] = [r for r in current_posts(store).to_pylist() if r[schema.POST_ID] == "posts/2.jpg"]
    assert newest[schema.PRODUCT_IDS] == ["p3"]


def test_a_set_of_pairs(tmp_path):
    store, root = str(tmp_path / "store"), tmp_path / "set"
    deepfashion2(root)
    (root / "train/image").mkdir(parents=True)
    for number in (1, 2, 4):  # 3 is missing, and so is the photo for validation
        (root / f"train/image/{number:06d}.jpg").write_bytes(picture(number))
    config = settings(store, "deepfashion2", root)
    assert convert.main(replace(config, dry_run=True)).pending_products == 4
    some = convert.main(replace(config, limit=1))
    assert (some.counts.read, delta.open_table(store, schema.PAIRS)) == (2, None)  # one of each, and no pairs of a part
    first = convert.main(config)
    assert first.counts.read == 3 + 1 + 4  # products, photos, pairs
    assert (first.counts.out, first.counts.rejects) == (2 + 0 + 1, {"not_found": 2, "no_photo": 2, "unknown_product": 1})
    assert codes(store) == {
        "deepfashion2/train/000003/item1": "not_found",
        "deepfashion2/validation/000001": "not_found",
        "deepfashion2/train/000001#0 deepfashion2/train/000003/item1": "no_photo",
        "deepfashion2/train/000001#1 deepfashion2/train/1/2": "unknown_product",
        "deepfashion2/validation/000001#0 deepfashion2/validation/1/1": "no_photo",
    }
    (pair,) = rows(store, schema.PAIRS)
    products = {p[schema.PRODUCT_ID]: p for p in rows(store, schema.PRODUCTS)}
    garments = {g[schema.GARMENT_ID]: g for g in rows(store, schema.GARMENTS)}
    (post,) = rows(store, schema.POSTS)
    images = {i[schema.IMAGE_ID]: i for i in rows(store, schema.IMAGES)}
    positive = products["deepfashion2/train/000002/item1"]
    assert (pair[schema.PRODUCT_ID], pair[schema.IMAGE_ID]) == ("deepfashion2/train/1/1", positive[schema.IMAGE_ID])
    assert (pair[schema.POST_ID], pair[schema.ANCHOR_IMAGE_ID]) == (post[schema.POST_ID], post[schema.IMAGE_ID])
    assert (pair[schema.RULE], pair[schema.SPLIT], pair[schema.SOURCE]) == ("annotated", "train", "deepfashion2")
    assert garments[pair[schema.GARMENT_ID]][schema.BOX] == [10, 20, 60, 90]
    assert decode(images[positive[schema.IMAGE_ID]][schema.BYTES]).shape == (70, 50, 3)  # cut to its box
    assert images[post[schema.IMAGE_ID]][schema.WIDTH] == 80
    assert len(garments) == 2
    assert embed.main(embed.Config(store=store, of="garments", dry_run=True)).pending == 2
    assert dict(products["deepfashion2/train/000002/item2"][schema.ATTRIBUTES]).get("product") is None  # style 0

    again = convert.main(config)  # what was not found is asked for again, and nothing else
    assert (again.counts.read, again.counts.out, again.rows["pairs"], again.unchanged) == (2, 0, 1, ("pairs",))
    (root / "train/image/000003.jpg").write_bytes(picture(3))
    late = convert.main(config)
    assert late.rows["pairs"] == 2
    assert len(rows(store, schema.PAIRS)) == 2
    assert len(rows(store, schema.PRODUCTS)) == 4
    assert len(rows(store, schema.POSTS)) == 1
    assert not (tmp_path / "store" / "_work").exists() or not any((tmp_path / "store" / "_work").iterdir())
    with pytest.raises(JobFailed, match="max_reject_rate"):
        convert.main(replace(config, max_reject_rate=0.1, min_rejects=1))


def test_dead_urls_are_rejects(tmp_path):
    store, root = str(tmp_path / "store"), tmp_path / "set"
    street2shop(root)
    (root / "photos.txt").write_text("".join(f"{i:010d},http://127.0.0.1:9/{i}.jpg\n" for i in range(1, 6)))
    config = replace(settings(store, "street2shop", root), fetch=FetchConfig(deadline_s=2, retries=0))
    done = convert.main(config)  # 3 products, 2 photos; 2 pairs of the dress, 1 of a dress and 1 of a belt without more
    assert (done.counts.read, done.counts.out) == (9, 0)
    assert done.counts.rejects == {"blocked_url": 5, "no_photo": 3, "no_category": 1}
    (tmp_path / "photos").mkdir()
    for number in range(1, 6):
        (tmp_path / f"photos/{number}.png").write_bytes(picture(number))
    config = settings(store, "street2shop", root, images=str(tmp_path / "photos"))
    convert.main(config)
    pairs = rows(store, schema.PAIRS)
    assert [(p[schema.PRODUCT_ID], p[schema.CATEGORY], p[schema.SPLIT]) for p in pairs] == [
        ("street2shop/70", "dress", "train")
    ] * 2
    assert codes(store)["street2shop/train/1#0 street2shop/belts/80/5"] == "no_category"


def wardrobe(store: str) -> None:
    """Cut-outs of 40 photos: every seventh in a dress, every tenth without shoes; two and two are near-duplicates."""
    lineage = Lineage("fill", "fill", "fill", "v", {"product_key": []}, {}, "x")
    photos, cut = [f"photo-{i:02d}" for i in range(NUM_PHOTOS)], []
    for i, image_id in enumerate(photos):
        boxes = {"top": [0.0, 0, 9, 9], "bottom": [0.0, 9, 9, 20], "shoes": [0.0, 20, 9, 30]}
        if i == 3:
            boxes["bottom"] = [0.0, 4, 9, 20]  # as cut-outs of before have it
        source = {s: "dress" if i % 7 == 0 and s != "shoes" else "boxes" for s in boxes}
        slots = [
            {"slot": s, "box_xyxy": b, "crop_source": source[s], "crop": picture(3 * i + n, 30, 20)}
            for n, (s, b) in enumerate(boxes.items())
            if s != "shoes" or i % 10
        ]
        whole = {"image_id": image_id, "bytes": b"", "width": 9, "height": 30, "person_box": [0.0, 0, 9, 30], "slots": slots}
        cut.append(
            whole | {"mask_rle": {"size": [1, 1], "counts": "x"}, "score": None, "stability": None, "stage_version": "v"}
        )
    for part in (cut[:15], cut[15:]):
        append_rows(store, Output(schema.CUTOUTS), pa.Table.from_pylist(part, schema=schema.CUTOUTS.schema), lineage)
    posts = [
        {
            "post_id": f"post-{i}", "url": None, "image_id": photos[i], "image_uri": "u", "product_ids": [], "product_urls": [],
            "active": True, "row_digest": "d", "fetched_at": 0,
        }
        for i in range(30)
    ]  # fmt: skip
    append_rows(store, Output(schema.POSTS), pa.Table.from_pylist(posts, schema=schema.POSTS.schema), lineage)
    duplicates = [
        {"image_id": p, "cluster_id": photos[i - i % 2], "cluster_size": 2, "duplicate_of": None, "how": None, "distance": None}
        for i, p in enumerate(photos)
    ]
    splits = [
        {"owner_id": f"post-{i}", "owner_kind": "post", "component_id": "c", "component_size": 2,
         "split": ("train", "train", "test")[i // 2 % 3]}
        for i in range(29)
    ]  # fmt: skip
    for table, made in ((schema.DUPLICATES, duplicates), (schema.SPLITS, splits)):
        receipts = write_part(store, Output(table), pa.Table.from_pylist(made, schema=table.schema), "run")
        receipts[0]["counts"] = Counts(len(made), len(made)).to_json()
        snapshot.replace(store, table, receipts, lineage)


def test_outfits_of_the_store_and_of_a_set(tmp_path):
    store, root = str(tmp_path / "store"), tmp_path / "set"
    with pytest.raises(UsageError, match="run 'w2w segment' first"):
        compose.main(compose.Config(store=store))
    wardrobe(store)
    config = compose.Config(store=store, modified=2, sheet=3, ray=RAY)
    assert compose.main(replace(config, dry_run=True)).cut_outs == 40
    done = compose.main(config)
    assert (done.counts.read, done.counts.out, done.counts.rejects) == (40, 36, {"missing_slot": 4})
    assert done.posts_and_products_without_a_split == 1
    assert (done.crops_sharing_pixels, round(done.largest_share_shared, 2)) == (1, 0.56)
    own = rows(store, schema.OUTFITS)
    worn = {r[schema.OUTFIT_ID]: r for r in own if r[schema.MODIFIED_OF] is None}
    assert (len(worn), len(own)) == (36, 36 * 3)
    for row in own:
        photos = [i[schema.IMAGE_ID] for i in row[schema.ITEMS]]
        if row[schema.MODIFIED_OF]:
            base = worn[row[schema.MODIFIED_OF]]
            other = [p for p, i in zip(photos, base[schema.ITEMS]) if p != i[schema.IMAGE_ID]]
            assert len(other) == 2
            assert row[schema.SPLIT] == base[schema.SPLIT]
            mine = int(base[schema.ITEMS][0][schema.IMAGE_ID][-2:]) // 2
            assert mine not in {int(p[-2:]) // 2 for p in other}
        elif int(photos[0][-2:]) < 30:  # as its post, or as the post of its near-duplicate
            assert row[schema.SPLIT] == ("train", "train", "test")[int(photos[0][-2:]) // 2 % 3]
    soup = BeautifulSoup(Path(done.page).read_text(encoding="utf-8"), "html.parser")
    assert len(soup.select(".sheet")) == 3
    assert "crops share pixels: run 'w2w segment' again" in soup.text
    assert len(soup.select(".outfit img")) == 3 * 3 * 3
    assert len(soup.select(".outfit .changed")) == 3 * 2 * 2

    polyvore(root)
    for number, item in enumerate("abcd"):
        (root / f"images/{item}.jpg").write_bytes(picture(number))
    convert.main(settings(store, "polyvore", root))
    outfits, questions = rows(store, schema.OUTFITS, source="polyvore-nondisjoint"), rows(store, schema.QUESTIONS)
    assert [r[schema.OUTFIT_ID] for r in outfits] == ["polyvore-nondisjoint/10"]  # the other has an item without a picture
    assert [i[schema.ITEM_ID] for i in outfits[0][schema.ITEMS]] == [ids.image_id(picture(n)) for n in (0, 1, 3)]
    assert [i[schema.CATEGORY] for i in outfits[0][schema.ITEMS]] == ["top", "bottom", "etc"]
    assert [(q[schema.KIND], q[schema.RIGHT]) for q in questions] == [("compatibility", 1)]
    assert codes(store)["polyvore-nondisjoint/fill_in_blank/test/0"] == "no_photo"
    assert rows(store, schema.OUTFITS, source=schema.OWN) == own

    unchanged = compose.main(config)  # products are another version now; the same outfits come of it
    assert unchanged.counts.read == 40
    assert rows(store, schema.OUTFITS, source=schema.OWN) == own
    assert rows(store, schema.OUTFITS, source="polyvore-nondisjoint") == outfits
    assert compose.main(config).unchanged
    assert "outfits" in convert.main(settings(store, "polyvore", root)).unchanged
    (root / "images/e.jpg").write_bytes(picture(9))
    convert.main(settings(store, "polyvore", root))
    assert len(rows(store, schema.OUTFITS, source="polyvore-nondisjoint")) == 2
    assert len(rows(store, schema.QUESTIONS)) == 3
    assert rows(store, schema.OUTFITS, source=schema.OWN) == own

    with pytest.raises(UsageError, match=r"was made with --product_key=\[\], and this is --product_key="):
        compose.main(replace(config, product_key=["sku"]))
    with pytest.raises(UsageError, match="has no rows of that version"):
        compose.main(replace(config, cutouts="nowhere"))
