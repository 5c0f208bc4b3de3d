"""A shop's own photos as posts: what a line says, what is rejected, and which products are meant."""

import pytest

from tests.unit.recommend.stores import append, fill, product
from w2w import schema
from w2w.errors import JobFailed, UsageError
from w2w.mining.sets import SetConfig, open_set
from w2w.mining.sets import job as convert
from w2w.mining.sets.flow import own_catalog
from w2w.mining.sets.posts import Catalog, OwnPosts, post_rows
from w2w.mining.sets.rows import once

SOLD = Catalog({"p1": "p1", "p2": "p2"}, {"https://shop.example/2": "p2"})


def posts(path, **options):
    found = open_set(SetConfig(format="posts", path=str(path), **options))
    assert isinstance(found, OwnPosts)
    return list(found.posts())


def rows(found, version="v"):
    return [row for batch in once(schema.POST_ID, post_rows(found, SOLD, "posts", version)) for row in batch.to_pylist()]


def test_a_line_says_who_wears_what(tmp_path):
    (tmp_path / "campaign.csv").write_text(
        "post_id,image,sku,product_urls,permalink,style,other\n"
        "a, looks/1.jpg ,p1|gone,https://shop.example/2 https://shop.example/9,https://feed.example/a,street,x\n"
        "b,https://cdn.example/b.jpg,,,,,\n"
    )
    first, second = rows(posts(tmp_path / "campaign.csv"))
    assert (first["post_id"], first["image_uri"], first["style"]) == ("posts/a", str(tmp_path / "looks/1.jpg"), "street")
    assert first["product_ids"] == ["gone", "p1", "p2"], "an unknown name stands as it is, a known link is its product"
    assert first["product_urls"] == ["https://shop.example/2", "https://shop.example/9"]
    assert first["url"] == "https://feed.example/a"
    assert (second["image_uri"], second["product_ids"], second["style"]) == ("https://cdn.example/b.jpg", [], None)
    assert {row["code"] for row in (first, second)} == {None}
    assert rows(posts(tmp_path / "campaign.csv"))[0]["key"] == first["key"]
    assert rows(posts(tmp_path / "campaign.csv"), "w")[0]["key"] != first["key"]


def test_what_is_wrong_with_a_line_rejects_that_line(tmp_path):
    long = "x" * 5000
    lines = [
        "photo,products",
        "1.jpg,p1",
        "2.jpg",
        ",p1",
        "../../etc/passwd,",
        "/etc/passwd,",
        f"3.jpg,{long}",
        "1.jpg,p2",
        "4.jpg,p2",
    ]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    found = rows(posts(tmp_path / "l.csv"))
    assert [row["code"] for row in found] == [
        None,
        "malformed_row",
        "missing_field",
        "bad_value",
        "bad_value",
        "bad_value",
        "duplicate_key",
        None,
    ]
    assert len({row["key"] for row in found}) == len(found)
    assert [row["post_id"] for row in found][1] == "posts/l.csv:3"


def test_each_photo_of_a_folder_is_a_post(tmp_path):
    for name in ("a.jpg", "deep/b.PNG", "deep/c.gif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [(p.name, p.products) for p in posts(tmp_path)] == [("a.jpg", ()), ("deep/b.PNG", ()), ("deep/c.gif", ())]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("a,b\n", {}, "l.csv, line 1: no column of photo, image, .*set.columns.photo; it has a, b"),
        ("photo\n", {"columns": {"products": "worn"}}, "no column 'worn'"),
        ("photo\n", {"columns": {"product": "worn"}}, "'product' is none of photo, post, products"),
        ('photo\n"', {}, None),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, text, options, says):
    (tmp_path / "l.csv").write_text(text)
    if says is None:
        assert [p.reject.code.value for p in posts(tmp_path / "l.csv")] == ["missing_field"]
        return
    with pytest.raises(UsageError, match=says):
        posts(tmp_path / "l.csv", **options)


def test_products_are_meant_by_id_or_attribute_and_by_their_address(tmp_path):
    store = str(tmp_path / "store")
    assert own_catalog(store, None) == Catalog({}, {})
    fill(store, range(3), pictures=False)
    append(store, schema.PRODUCTS, [product(7, active=False), product(8, attributes=[("sku", "S8")])], "more")
    by_id = own_catalog(store, None)
    assert sorted(by_id.named) == ["p000", "p001", "p002", "p008"]
    assert by_id.at["https://shop.example/8"] == "p008"
    assert "https://shop.example/7" not in by_id.at
    assert own_catalog(store, "sku").named["S8"] == "p008"


def test_json_lines_are_read_as_such(tmp_path):
    (tmp_path / "camp.jsonl").write_text(
        '{"post_id": 7, "products": ["p1", "gone"], "photo": "a.jpg"}\n\n'
        '{"image": "elsewhere.jpg", "photo": "b.jpg", "links": "https://shop.example/2"}\n'
        'half a {\n["list"]\n{"products": null}\n'
    )
    first, second, *bad = rows(posts(tmp_path / "camp.jsonl"))
    assert (first["post_id"], first["image_uri"]) == ("posts/7", str(tmp_path / "a.jpg"))
    assert (first["product_ids"], second["product_ids"]) == (["gone", "p1"], ["p2"])
    assert [row["code"] for row in bad] == ["malformed_row", "malformed_row", "missing_field"]
    assert [row["post_id"] for row in bad] == ["posts/camp.jsonl:4", "posts/camp.jsonl:5", "posts/camp.jsonl:6"]
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match=r"no column of photo, image, .*it has a"):
        posts(tmp_path / "other.jsonl")


@pytest.mark.parametrize("name", ["camp.csv", "camp.jsonl"])
def test_an_empty_list_is_told_as_such(tmp_path, name):
    (tmp_path / name).write_text("\n")
    with pytest.raises(JobFailed, match=f"{name}: is empty"):
        posts(tmp_path / name)


def test_an_address_among_products_is_a_link_and_what_is_unknown_is_counted(tmp_path):
    (tmp_path / "l.csv").write_text("photo,products\n1.jpg,p1|https://shop.example/2|https://shop.example/9|gone\n")
    sold = Catalog(SOLD.named, SOLD.at)
    (batch,) = once(schema.POST_ID, post_rows(posts(tmp_path / "l.csv"), sold, "posts", "v"))
    (row,) = batch.to_pylist()
    assert row["product_ids"] == ["gone", "p1", "p2"]
    assert row["product_urls"] == ["https://shop.example/2", "https://shop.example/9"]
    assert sold.unknown == {"products": 1, "links": 1}


def test_a_dry_run_tells_what_would_be_rejected(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"x")
    lines = ["photo,products", "1.jpg,p001", "gone.jpg,p001", ",p001", "1.jpg,nobody", "https://cdn.example/a.jpg,"]
    (tmp_path / "camp.csv").write_text("\n".join(lines))
    store = str(tmp_path / "store")
    fill(store, range(3), pictures=False)
    config = convert.Config(store=store, set=SetConfig(format="posts", path=str(tmp_path / "camp.csv")), dry_run=True)
    result = convert.main(config)
    assert result.pending_photos == 5
    assert result.would_be_rejected == {"not_found": 1, "missing_field": 1, "duplicate_key": 1}
    assert result.not_in_the_catalog == {"products": 1}
