"""`w2w find` on the wardrobe: what it answers, what it says of what it cannot answer, and that few photos need no Ray."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import w2w
from tests.unit.nights.nights import without_ray
from w2w import config as configuration
from w2w.find import crops, finder, job
from w2w.find.crops import Crops
from w2w.find.finder import encoder_of
from w2w.find.job import Config
from w2w.find.photos import of_folder
from w2w.garments.detector import DetectorConfig, tells_pixels
from w2w.models.config import DEFAULT, EncoderConfig
from w2w.results import words

K = 3


def test_a_photo_is_answered_without_ray(shop, capsys):
    found = w2w.find(photos=shop.photos[:2], store=shop.store, k=K, verbose=True)
    assert (found.photos, found.counts.read, found.counts.out, found.where) == (2, 2, 2, "this process")
    assert [a.photo for a in found.answers] == shop.photos[:2]
    for answer in found.answers:
        assert [g.number for g in answer.garments] == list(range(1, len(answer.garments) + 1))
        tops = [g.box_xyxy[1] + g.box_xyxy[3] for g in answer.garments]
        assert tops == sorted(tops)
        for garment in answer.garments:
            assert 0 <= garment.box_xyxy[0] < garment.box_xyxy[2] <= answer.width
            assert 0 <= garment.box_xyxy[1] < garment.box_xyxy[3] <= answer.height
            sold = garment.category not in ("hat", "bag")
            assert [p.category for p in garment.products] == [garment.category] * (K if sold else 0)
            assert garment.says == (None if sold else f"you sell no {garment.category}s")
            assert [p.score for p in garment.products] == sorted((p.score for p in garment.products), reverse=True)
            for p in garment.products:
                assert (p.title, p.brand, p.currency) != (None, None, None)
                assert p.url == f"https://shop.example/p/{p.product_id}"
    assert found.garments == sum(len(a.garments) for a in found.answers) > 4
    lines = [json.loads(line) for line in Path(found.lines).read_text().splitlines()]
    assert [line["photo"] for line in lines] == shop.photos[:2]
    titles = [p.title for g in found.answers[0].garments for p in g.products]
    assert [p["title"] for g in lines[0]["garments"] for p in g["products"]] == titles
    assert Path(found.report).parent.parent == Path(shop.store) / "reports" / "find"
    assert (Path(shop.store) / "reports" / "find" / "latest.html").read_bytes() == Path(found.report).read_bytes()
    said = capsys.readouterr().out
    assert titles[0] in said
    assert "EUR" in said


def test_the_page_says_why_the_nearest_look_like_a_garment(shop):
    found = w2w.find(photos=shop.photos[:1], store=shop.store, k=K, explain=2)
    page = BeautifulSoup(Path(found.report).read_text(encoding="utf-8"), "html.parser")
    sold = [g for g in found.answers[0].garments if g.products]
    told = page.select("details.why")
    assert len(told) == len(sold) > 0
    for garment, why in zip(sold, told):
        titles = [p.title for p in garment.products[:2]]
        assert [f.get_text().strip().partition(" ")[2] for f in why.select("figcaption")] == titles
        assert [float(f.get_text().split()[0]) for f in why.select("figcaption")] == pytest.approx(
            [p.score for p in garment.products[:2]], abs=0.02
        )
        assert len(why.select("img")) == 4
        assert "sum to the cosine" in why.get_text()
    none = w2w.find(photos=shop.photos[:1], store=shop.store, k=K)
    assert "<details" not in Path(none.report).read_text(encoding="utf-8")
    with pytest.raises(w2w.UsageError, match="explain=-1"):
        w2w.find(photos=shop.photos[:1], store=shop.store, explain=-1)


def test_a_watched_folder_explains_each_photo_once(shop, tmp_path, monkeypatch):
    """And the page, which is written anew with every photo, still has all of them."""
    asked = []
    monkeypatch.setattr(Crops, "by_number", lambda *args, told=Crops.by_number: asked.append(1) or told(*args))

    def three(folder: str, there: set[str]):
        for number, photo in enumerate(shop.photos[:3]):
            shutil.copy(photo, folder)
            yield of_folder(folder).slice(number, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "appearing", three)
    found = w2w.find(watch=str(tmp_path), store=shop.store, k=1, explain=1, shown=2, out=tmp_path / "out")
    page = BeautifulSoup(Path(found.report).read_text(encoding="utf-8"), "html.parser")
    names = [Path(photo).name for photo in shop.photos[:3]]
    assert [f.get_text() for f in page.select(".found > figure figcaption")] == [names[2], names[1]]
    assert all(shown.select("details.why") for shown in page.select(".found"))
    assert len(asked) == found.photos == 3


def test_what_is_worn_is_found(shop):
    """With the boxes of the detector: of the visible garments whose class is sold and was found, a half at the first place."""
    found = w2w.find(photos=shop.photos, store=shop.store, k=1, shown=0)
    asked = right = 0
    for answer, worn in zip(found.answers, shop.worn):
        of_class = {i["category"]: i["product_id"] for i in worn if i["visible_fraction"] > 0.35}
        for garment in answer.garments:
            if garment.products and garment.category in of_class:
                asked += 1
                right += garment.products[0].product_id == of_class[garment.category]
    assert asked >= 10
    assert right / asked >= 0.5
    assert found.report is None


def test_what_cannot_be_read_is_a_line(shop, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    grey = tmp_path / "grey.png"
    from PIL import Image

    Image.new("RGB", (300, 400), (128, 128, 128)).save(grey)
    (tmp_path / "<img src=x onerror=alert(1)>.jpg").write_bytes(Path(shop.photos[0]).read_bytes()[:3000])
    names = sorted(str(p) for p in tmp_path.iterdir())
    found = w2w.find(photos=[*names, "http://127.0.0.1:9/x.jpg"], store=shop.store, out=tmp_path / "out", fetch={"retries": 0})
    assert [a.reject for a in found.answers] == ["truncated", "not_an_image", None, "blocked_url"]
    assert found.answers[1].says == "it cannot be read: no image signature; begins with '<html>'"
    assert found.answers[2].says == "no garment was found"
    assert found.counts.rejects == {"truncated": 1, "not_an_image": 1, "blocked_url": 1}
    assert (found.counts.read, found.counts.out) == (4, 1)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in page
    assert "no garment was found" in page
    assert found.lines == str(tmp_path / "out" / "found.jsonl")


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"whole": True}, lambda g: (g.number, g.category, len(g.products)) == (0, None, 5)),
        ({"garment": "shoes"}, lambda g: g.category == "shoes"),
        ({"garment": "1"}, lambda g: g.number == 1),
        ({"category": "shoes"}, lambda g: {p.category for p in g.products} == {"shoes"}),
        ({"filter": {"price": "50..100"}}, lambda g: all(50 <= p.price <= 100 for p in g.products)),
        ({"min_score": 0.99}, lambda g: g.says in ("no product scores 0.99 or more", "you sell no hats", "you sell no bags")),
        ({"per_class": 9}, lambda g: g.category),
        ({"cut_out": True, "garment": "shoes"}, lambda g: len(g.products) == 5),
    ],
)
def test_options(shop, options, check):
    found = w2w.find(photos=shop.photos[:1], store=shop.store, shown=0, **options)
    (answer,) = found.answers
    assert answer.garments
    assert all(map(check, answer.garments))


def scores_of(shop, **options) -> tuple[dict, str]:
    """By photo, garment and product; and the version of the search."""
    asked = {"photos": shop.photos[:2], "store": shop.store, "shown": 0, "k": 50, "garment": "top,bottom,dress"}
    found = w2w.find(**asked, **options)
    scores = {(a.photo, g.number, p.product_id): p.score for a in found.answers for g in a.garments for p in g.products}
    return scores, found.search_version


def test_the_cut_out_never_takes_from_a_score_and_both_are_the_better_of_each(shop):
    plain, own, person, both = (
        scores_of(shop, **({"cut_out_by": by} if by else {"cut_out": False})) for by in ("", "garment", "person", "both")
    )
    assert len({version for _, version in (plain, own, person, both)}) == 4
    for scores in (own[0], person[0]):
        assert scores.keys() == plain[0].keys()
        gains = [scores[key] - plain[0][key] for key in scores]
        assert min(gains) >= -1e-5
        assert max(gains) > 0.01
    assert own[0] != person[0]
    for key, score in both[0].items():
        assert score == pytest.approx(max(own[0][key], person[0][key]), abs=1e-5)
    assert scores_of(shop) == own
    assert scores_of(shop, cut_out=True) == both


def test_cut_out_by_its_own_pixels_no_other_model_is_loaded(shop, monkeypatch):
    for where in (crops, job):
        monkeypatch.setattr(where, "try_segmenter" if where is job else "load_segmenter", None)
    asked = {"photos": shop.photos[:1], "store": shop.store, "shown": 0, "cut_out": True, "cut_out_by": "garment"}
    assert w2w.find(**asked).answers[0].garments
    with pytest.raises(w2w.UsageError, match=r"segmenter\.name=nowhere:none: neither"):
        w2w.find(**asked | {"cut_out_by": "person"}, segmenter={"name": "nowhere:none"}, dry_run=True)
    monkeypatch.setattr(finder, "tells_pixels", lambda config: False)
    with pytest.raises(w2w.UsageError, match=r"--cut_out_by=garment: detector\.name=w2w-lite0 does not tell which pixels"):
        w2w.find(**asked, dry_run=True)
    assert tells_pixels(DetectorConfig())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"photos": []}, "nothing to search with"),
        ({"photos": ["nowhere.jpg"]}, "nowhere.jpg: there is no such photo, folder or feed"),
        ({"index": "other"}, "no index is published there"),
        ({"category": "tops"}, "category 'tops' is not in index 'default'. Did you mean 'top'?"),
        ({"filter": {"colur": "red"}}, "--filter.colur: no product has it. Did you mean 'colour'?"),
        (
            {"text": "red dress"},
            f"encoder.name={DEFAULT} has no text tower. These have one: hf:openai/clip",
        ),
        ({"text": " "}, "--text is empty"),
        ({"encoder": {"name": DEFAULT, "dtype": "bfloat16"}}, "their vectors cannot be compared"),
        ({"of": "posts"}, "--of=posts: searches with the store's own photos"),
        ({"watch": "."}, "--watch answers what appears in its folder"),
        ({"photos": [], "watch": "nowhere"}, "--watch=nowhere: there is no such folder"),
        ({"longest_px": 8}, "longest_px=8: must be at least 64"),
    ],
)
def test_a_mistake_is_told_before_any_work(shop, options, said):
    with pytest.raises(w2w.UsageError) as error:
        w2w.find(**{"photos": shop.photos[:1], "store": shop.store} | options)
    assert said in str(error.value)


def test_a_dry_run_does_nothing(shop, tmp_path):
    found = w2w.find(photos=shop.photos, store=shop.store, out=tmp_path / "out", dry_run=True)
    assert (found.photos, found.pending, found.answers, found.lines) == (6, 6, (), None)
    assert {"garments", "products"}.isdisjoint(words(found)), "nobody has looked yet"
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_an_answer(shop, tmp_path):
    found = w2w.find(photos=[tmp_path], store=shop.store)
    assert (found.photos, found.garments, found.answers) == (0, 0, ())
    assert words(found)["without photos"] == f"there is no photo in {tmp_path}"
    assert Path(found.lines).read_text() == ""
    assert "There are no photos" in Path(found.report).read_text()


def test_too_many_unreadable_photos_are_named(shop, tmp_path):
    """They are in no table, to which the message could send."""
    for n in range(7):
        (tmp_path / f"{n}.jpg").write_bytes(b"")
    with pytest.raises(w2w.JobFailed, match=r"allows: .*/0\.jpg: it cannot be read: .*; and 2 more\. Mend the input") as e:
        w2w.find(photos=[tmp_path], store=shop.store, max_reject_rate=0.5)
    assert "--rejects" not in str(e.value)


def test_what_cannot_be_written_is_told_before_the_search(shop, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(job, "Here", None)  # nothing is loaded
    with pytest.raises(w2w.UsageError, match=r"--out=.*/file/out: cannot write there"):
        w2w.find(photos=shop.photos, store=shop.store, out=tmp_path / "file" / "out")


def test_a_single_photo_that_cannot_be_read_is_no_success(shop, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(w2w.JobFailed, match=r"bad\.jpg: it cannot be read"):
        w2w.find(photos=[tmp_path / "bad.jpg"], store=shop.store)
    some = w2w.find(photos=[tmp_path / "bad.jpg", shop.photos[0]], store=shop.store)
    assert (some.photos, some.counts.rejected) == (2, 1)


def test_names_and_titles_cannot_reorder_a_page_or_the_terminal(shop, tmp_path, capsys):
    """File names with an escape sequence and a direction override: neither reaches a person, and judgements keep them."""
    name = "a\x1b[31mb\u202egpj.jpg"
    (tmp_path / name).write_bytes(Path(shop.photos[0]).read_bytes())
    found = w2w.find(photos=[tmp_path / name], store=shop.store, garment="shoes", verbose=True)
    page = Path(found.report).read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\u202e" not in said.out + said.err
    soup = BeautifulSoup(page, "html.parser")
    assert soup.select_one("figcaption").text == r"a\x1b[31mb\u202egpj.jpg"
    assert soup.select_one("[data-query]")["data-query"] == f"{tmp_path / name}#{found.answers[0].garments[0].number}"
    soup.select_one("[data-query]")["data-query"] = ""
    assert not {"\x1b", "\u202e"} & set(str(soup))


def test_workers_give_the_same_rows(shop, tmp_path, monkeypatch):
    """In table `found`, which a second run only reads; a photo that was added is the only one that it computes."""
    without_ray(monkeypatch)
    store = str(tmp_path / "store")
    shutil.copytree(shop.store, store)
    (tmp_path / "photos").mkdir()
    for photo in shop.photos[:3]:
        shutil.copy(photo, tmp_path / "photos")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    asked = {"photos": [str(tmp_path / "photos")], "store": store, "pool": {"workers": 1, "batch_rows": 2}}
    here = w2w.find(**asked)
    there = w2w.find(**asked, workers_from=1)
    assert (here.where, there.where, there.pending) == ("this process", "workers", 4)
    assert (there.counts.read, there.counts.out, there.counts.rejects) == (4, 3, {"empty": 1})
    assert Path(there.lines).read_text() == Path(here.lines).read_text()
    shutil.copy(shop.photos[3], tmp_path / "photos")
    again = w2w.find(**asked, workers_from=1)
    assert (again.pending, again.skipped, again.counts.read) == (1, 4, 1)
    assert len(Path(again.lines).read_text().splitlines()) == 5
    assert w2w.find(**asked, workers_from=1).counts.read == 0
    assert w2w.find(**asked, workers_from=1, k=1).pending == 5


def test_the_stores_own_photos(shop, tmp_path, monkeypatch):
    """Those of table `images`, which are products' own: each finds itself."""
    without_ray(monkeypatch)
    store = str(tmp_path / "store")
    shutil.copytree(shop.store, store)
    here = w2w.find(of="images", store=store, whole=True, k=1, limit=9, shown=2)
    there = w2w.find(of="images", store=store, whole=True, k=1, limit=9, shown=2, workers_from=1, pool={"workers": 1})
    assert (here.photos, there.photos) == (9, 9)
    assert Path(there.lines).read_text() == Path(here.lines).read_text()
    assert all(p.image_id == a.photo for a in here.answers for g in a.garments for p in g.products)
    with pytest.raises(w2w.UsageError, match="posts"):
        w2w.find(of="posts", store=store)


def test_words_of_the_command_line_are_photos():
    config = configuration.parse(
        Config, ["a.jpg", "--store", "S", "[b], c.jpg", "1", "--k=2", "https://x.example/?a=b"], "w2w find"
    )
    assert config.photos == ["a.jpg", "[b], c.jpg", "1", "https://x.example/?a=b"]
    assert (config.store, config.k) == ("S", 2)
    given = configuration.parse(Config, ["--store=S", "--filter.brand", "Fjord & Co", "--filter.price=..50"], "w2w find")
    assert given.wanted == {"brand": ["Fjord & Co"], "price": ["..50"]}
    assert configuration.parse(Config, ["--store=S", "--filter={size: [38, L], new: true}"], "w2w find").wanted == {
        "size": ["38", "L"],
        "new": ["true", "yes", "on"],
    }


def test_an_index_does_not_name_code(shop):
    """Its encoder is taken where the options name none, but never one that would run somebody's module."""
    manifest = w2w.open(shop.store).index().manifest
    assert encoder_of(EncoderConfig(threads=3), replace(manifest, encoder="hf:a/b")) == EncoderConfig("hf:a/b", threads=3)
    assert encoder_of(EncoderConfig("timm:x"), replace(manifest, encoder="hf:a/b")).name == "timm:x"
    assert encoder_of(EncoderConfig(DEFAULT), replace(manifest, encoder="hf:a/b")).name == DEFAULT, "it is named"
    coloured = replace(manifest, encoder="hf:a/b", colour=0.7)
    assert (
        encoder_of(EncoderConfig(), coloured)
        == encoder_of(EncoderConfig("hf:a/b"), coloured)
        == EncoderConfig("hf:a/b", colour=0.7)
    )
    assert encoder_of(EncoderConfig(colour=0.5), coloured).colour == 0.5
    assert encoder_of(EncoderConfig("timm:x"), coloured).colour == 0
    with pytest.raises(w2w.UsageError, match=r"was made with custom code: name it with --encoder\.name=os:system"):
        encoder_of(EncoderConfig(), replace(manifest, encoder="os:system"))
    with pytest.raises(w2w.UsageError, match="custom code"):
        encoder_of(EncoderConfig(), replace(manifest, encoder="grid"))  # an entry point


def test_a_shop_without_our_classes_is_told_so(shop, tmp_path, monkeypatch):
    """Instead of "you sell no tops", garment by garment."""
    without_ray(monkeypatch)
    store, feed = str(tmp_path / "store"), {"uri": str(shop.folder / "shop" / "products.csv"), "category_default": "apparel"}
    w2w.nightly(store=store, feed=feed | {"category_map": {"hats": "hat"}}, pool={"workers": 1})
    with pytest.raises(w2w.UsageError, match=r"has the categories apparel: none is a garment's class \(bag, bottom"):
        w2w.find(photos=shop.photos[:1], store=store, dry_run=True)
    assert w2w.find(photos=shop.photos[:1], store=store, whole=True, shown=0).products == 5
    assert w2w.find(photos=shop.photos[:1], store=store, category="apparel", shown=0).products > 5
