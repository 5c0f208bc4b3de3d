"""Looks: their vectors and index, what leaves it, and photos that find them."""

import json
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup

import w2w
from tests.unit.style.conftest import NUM, Posts
from w2w import schema
from w2w.images.decode import decode
from w2w.models.looks import look_version


def stocked(posts: Posts, **detected) -> None:
    for n in range(NUM):
        posts.post(n, products=("coat", "gone") if n == 0 else ())
    posts.detected(list(range(NUM)), **detected)


def test_a_look_is_the_person_and_a_whole_picture_where_there_is_nobody(posts):
    stocked(posts, nobody=(1,))
    encoder = w2w.load_encoder()
    made = posts.embed()
    assert (made.counts.read, made.counts.out, made.model_version) == (NUM, NUM, look_version(encoder.model_version, "d1"))
    assert made.model_version != encoder.model_version
    rows = w2w.open(posts.store).table("embeddings").polars()
    assert set(rows["model_version"]) == {made.model_version}
    assert set(rows["owner_kind"]) == {"look"}
    stored = dict(zip(rows["owner_id"], rows["vector"].to_numpy()))
    photos = {name: decode(data) for name, data in posts.jpegs.items()}
    width, height = posts.sizes["image-0"]
    person = photos["image-0"][int(height * 0.1) : -int(-height * 0.95 // 1), int(width * 0.2) : -int(-width * 0.8 // 1)]
    expected = encoder([np.ascontiguousarray(person), photos["image-1"]])
    assert stored["image-0"] @ expected[0] > 0.999
    assert stored["image-1"] @ expected[1] > 0.999
    assert stored["image-0"] @ encoder([photos["image-0"]])[0] < 0.98


def test_looks_are_embedded_once_and_wait_for_the_newest_detector(posts):
    for n in range(NUM):
        posts.post(n)
    whole = posts.embed(dry_run=True)
    assert (whole.pending, whole.not_detected) == (NUM, None)  # without a detector they are whole pictures
    posts.detected([0, 1, 2])
    first = posts.embed()
    assert (first.counts.out, first.not_detected) == (3, NUM - 3)
    posts.detected([3, 4, 5])
    second = posts.embed(limit=2)
    assert (second.counts.out, second.model_version, second.not_detected) == (2, first.model_version, None)
    assert posts.embed().counts.out == 1
    assert posts.embed().counts.read == 0
    posts.post(0, active=False)
    posts.detected(list(range(NUM)), "d2")
    again = posts.embed()
    assert again.model_version != first.model_version
    assert posts.owners(again.model_version) == {f"image-{n}" for n in range(1, NUM)}
    with pytest.raises(w2w.UsageError, match="--version"):
        posts.embed(version="d1")


def test_a_photo_that_cannot_be_read_is_a_reject(posts):
    stocked(posts)
    posts.write(schema.IMAGES, [])
    bad = {f.name: None for f in schema.IMAGES.schema} | {"image_id": "image-9", "bytes": b"none", "width": 9, "height": 9}
    bad |= {"format": "", "phash": 0, "source_uri": "", "fetched_at": 0}
    posts.write(schema.IMAGES, [bad])
    posts.sizes["image-9"] = (900, 900)
    posts.detected([9])
    posts.post(9)
    made = posts.embed(min_rejects=2)
    assert (made.counts.read, made.counts.out, made.counts.rejected) == (NUM + 1, NUM, 1)
    assert posts.embed(min_rejects=2).counts.read == 0


def test_withdrawn_posts_leave_the_index(posts):
    stocked(posts)
    posts.embed(limit=1)
    with pytest.raises(w2w.UsageError, match=r"5 of 6 active posts have no vector .* 'w2w embed --of=looks'"):
        posts.index(min_rejects=1)
    posts.embed()
    first = posts.index()
    assert first.published
    assert first.counts.out == NUM
    assert posts.index().unchanged
    posts.post(2, active=False)
    assert posts.index().counts.out == NUM - 1
    found = w2w.style(photos=[str(posts.folder / "2.jpg")], store=posts.store, k=NUM, shown=0)
    assert {look.post_id for look in found.answers[0].looks} == {f"post-{n}" for n in range(NUM)} - {"post-2"}
    with pytest.raises(w2w.UsageError, match="'looks'"):
        w2w.find(photos=[str(posts.folder / "2.jpg")], store=posts.store, index="looks")


def test_a_photo_finds_its_own_look_first_and_what_is_worn_in_it(posts, capsys):
    stocked(posts, nobody=tuple(range(NUM)))  # nobody anywhere: query and looks are whole photos, and equal
    posts.embed()
    posts.index()
    garment = {"number": 1, "category": "top", "score": 0.9, "box_xyxy": [0, 0, 9, 9]}
    near = [{"rank": 1, "product_id": "hat", "image_id": "catalog", "category": "top", "score": 0.5, "same_picture": []}]
    found = {f.name: "" for f in schema.FOUND.schema} | {"key": "image-0", "width": 9, "height": 9, "search_version": "s"}
    posts.write(schema.FOUND, [found | {"garments": [garment | {"neighbours": near}]}], "s")
    photos = [str(posts.folder / f"{n}.jpg") for n in (0, 3)] + [str(posts.folder / "bad.jpg")]
    (posts.folder / "bad.jpg").write_bytes(b"nothing")
    result = w2w.style(photos=photos, store=posts.store, k=2, explain=1, detector={"threshold": 0.99}, verbose=True)
    assert (result.counts.read, result.counts.out, result.counts.rejected) == (3, 2, 1)
    first, second, bad = result.answers
    assert [a.photo for a in result.answers] == photos
    assert (first.looks[0].rank, first.looks[0].post_id) == (1, "post-0")
    assert second.looks[0].post_id == "post-3"
    assert first.looks[0].score == pytest.approx(1, abs=1e-3)
    assert first.looks[0].url == "https://style.example/0"
    assert first.person_box is None
    assert "nobody was found" in first.says
    assert [(p.product_id, p.how) for p in first.looks[0].products] == [("coat", "tagged"), ("hat", "found")]
    assert second.looks[0].products == ()
    assert bad.reject
    assert bad.looks == ()
    lines = [json.loads(line) for line in Path(result.lines).read_text().splitlines()]
    assert [line["photo"] for line in lines] == photos
    assert lines[0]["looks"][0]["products"][0]["product_id"] == "coat"
    said = capsys.readouterr().out
    assert "https://style.example/0" in said
    page = BeautifulSoup(Path(result.report).read_text(encoding="utf-8"), "html.parser")
    assert [len(s.select(".look")) for s in page.select("section")] == [2, 2, 0]
    assert [p.select_one(".name").get_text() for p in page.select(".look")[0].select(".product")] == ["<b>coat", "<b>hat"]
    assert not page.select(".look b b")
    assert page.select_one(".look h3").get_text().startswith("1 · similarity 1.00 · ")
    assert "beside each the products worn in it that are on sale" in page.get_text()
    assert len(page.select("details.why")) == 2
    assert (Path(posts.store) / "reports" / "style" / "latest.html").read_bytes() == Path(result.report).read_bytes()
    dry = w2w.style(photos=photos, store=posts.store, dry_run=True)
    assert (dry.photos, dry.report, dry.person) == (3, None, True)


def test_what_style_cannot_answer_is_said_first(posts):
    photo = str(posts.folder / "0.jpg")
    for options, match in (
        ({"photos": []}, "nothing to search with"),
        ({"photos": [photo], "k": 0}, "k=0"),
        ({"photos": [photo]}, "run 'w2w embed --of=looks', then 'w2w index --of=looks'"),
    ):
        with pytest.raises(w2w.UsageError, match=match):
            w2w.style(store=posts.store, **options)
    stocked(posts)
    posts.embed()
    posts.index()
    with pytest.raises(w2w.UsageError, match=r"nobody\.jpg"):
        w2w.style(photos=["nobody.jpg"], store=posts.store)
    with pytest.raises(w2w.UsageError, match="run 'w2w embed --of=looks'"):
        w2w.style(photos=[photo], store=posts.store, encoder={"name": "efficientnet-lite0", "store_dtype": "float16"})
