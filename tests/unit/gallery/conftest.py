"""The store that the tests of this folder show."""

import pytest

from tests.unit.gallery import stores
from w2w import ids, schema
from w2w.shown import on_page

EVIL = "</script><script>alert(1)</script>\u2028'\"\x00\u202e"
SHOWN = on_page(EVIL)
NUM = 40


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """40 products in 4 classes: 0 and 4 have one picture, 8 a near-duplicate of theirs, 5 is withdrawn, 6 has no picture, 7 a
    torn one; 12 and 16 are two colours of a design; product 1 is hostile."""
    folder = str(tmp_path_factory.mktemp("store") / "tables")
    images = [*stores.pictures(NUM - 1), b"\xff\xd8torn"]
    rows = stores.products(NUM, images)
    rows[4]["image_id"] = rows[0]["image_id"]
    rows[5]["active"] = False
    rows[6]["image_id"] = None
    rows[7]["image_id"] = ids.image_id(images[-1])
    for number in (12, 16):
        rows[number] |= {"title": f"Long woven top {stores.COLOURS[number % 5]}", "brand": "Fjord"}
    rows[1] |= {"title": EVIL, "brand": EVIL, "url": "javascript:alert(1)", "attributes": [("colour", "red"), (EVIL, EVIL)]}
    stores.fill(folder, rows, images)
    alike = [{"image_id": rows[i]["image_id"], "cluster_id": rows[0]["image_id"], "cluster_size": 2} for i in (0, 8)]
    stores.append(folder, schema.DUPLICATES, alike)
    posts = [
        {"post_id": f"post{n}", "url": url, "image_id": rows[9 + n]["image_id"], "product_ids": worn, "active": n != 3}
        for n, (url, worn) in enumerate(
            [
                ("https://blog.example/1", ["p00009", "p00010"]),
                ("javascript:alert(1)", ["p00005", "gone"]),
                (None, []),
                (None, []),
            ]
        )
    ]
    stores.append(folder, schema.POSTS, [post | {"fetched_at": stores.NOW} for post in posts])
    items = [("top", 8), ("bottom", 9), ("shoes", 10)]
    outfit = [
        {"slot": slot, "item_id": rows[i]["image_id"], "image_id": rows[i]["image_id"], "category": rows[i]["category"]}
        for slot, i in items
    ]
    stores.append(folder, schema.OUTFITS, [{"outfit_id": "o1", "items": outfit, "replaced": [], "source": "polyvore"}])
    wear = [
        {
            "rank": 1,
            "score": 0.82,
            "items": [_item(rows[9]), _item(rows[10])],
            "pairs": [{"category": "shoes", "beside": "top", "score": 0.9}],
        }
    ]
    wear += [{"rank": 2, "score": 0.5, "items": [_item(rows[5])], "pairs": []}]  # which is no longer sold
    made = {"product_id": rows[8]["product_id"], "outfits": wear, "active": True, "fetched_at": stores.NOW}
    stores.append(folder, schema.RECOMMENDATIONS, [made, made | {"product_id": "gone"}])
    return folder


def _item(row):
    return {name: row[name] for name in ("category", "product_id", "image_id")}
