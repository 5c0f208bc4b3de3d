"""What the pages of mining say and draw."""

import io
import re
from dataclasses import fields, is_dataclass

import numpy as np
import simplejpeg
from bs4 import BeautifulSoup
from PIL import Image

from w2w.errors import RejectCode
from w2w.garments import job_detect
from w2w.garments.page import Box, Seen, colours_of
from w2w.mining.outfits.page import Piece, Worn, outfit_sheet
from w2w.mining.pairs import job as mine
from w2w.mining.pairs.page import Counted, Reason, Rejected, Side, mining_report
from w2w.mining.pairs.shown import _MEANINGS
from w2w.mining.splits import job as split
from w2w.report.cards import dress_of

RED, BLUE = (simplejpeg.encode_jpeg(np.full((60, 80, 3), c, np.uint8)) for c in ((200, 0, 0), (0, 0, 200)))


def options(config: type, prefix: str = "--") -> set[str]:
    found = set()
    for field in fields(config):
        found.add(prefix + field.name)
        if is_dataclass(field.type):
            found |= options(field.type, f"{prefix}{field.name}.")
    return found


def test_every_reason_has_a_sentence_and_an_advice_with_options_that_there_are():
    known = set().union(*(options(job.Config) for job in (mine, split, job_detect))) | {"--rejects", "--of"}
    for code, said in _MEANINGS.items():
        assert all(text.endswith(".") for text in said), code
        assert set(re.findall(r"--[\w.]*\w", said[1])) <= known, code


def test_a_reason_says_what_to_do_and_its_photo_what_was_found(tmp_path):
    seen = Seen("p", RED, [Box("bag", "bag", 0.4, (0, 0, 20, 20)), Box("top", "<b>shirt</b>", 0.9, (30, 0, 60, 40))])
    example = Rejected("<i>none</i>", seen, Side("a <b>title</b>", None), "javascript:alert(1)")
    code = RejectCode.CROSSES_SPLIT
    reasons = [Reason(code, *_MEANINGS[code], 236, [example])]
    page = tmp_path / "mine.html"
    mining_report(str(page), {"pairs": "0"}, {}, Counted(), reasons, [], [], colours_of(["bag", "top"]))
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    row = soup.select_one("table tr:has(a)")
    assert "236 crosses split: Tags connect so many posts" in " ".join(row.get_text(" ").split()).replace(" :", ":")
    assert "What to do: Nothing, if" in row.get_text()
    rejected = soup.select_one(".rejected")
    assert [" ".join(li.get_text(" ").split()) for li in rejected.select(".legend li")] == [
        "1 top (<b>shirt</b>) 0.90",
        "2 bag 0.40",
    ]
    assert rejected.select_one("img")["alt"] == "the post's photo, found: top (<b>shirt</b>) 0.90, bag 0.40"
    assert soup.select("article a, article b, article i") == []


def test_a_dress_is_drawn_once_and_what_was_put_in_is_framed(tmp_path):
    halves = tuple(Piece(slot, "dress", crop, "dress", False) for slot, crop in (("top", RED), ("bottom", BLUE)))
    shoes = Piece("shoes", "shoes", RED, "boxes", False)
    other = (Piece("top", "top", RED, "boxes", True), Piece("bottom", "bottom", BLUE, "ratios", False), shoes)
    page = tmp_path / "compose.html"
    outfit_sheet(str(page), "Outfits", {}, {}, [Worn("o" * 64, "test", (*halves, shoes), (other,))])
    worn, modified = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select("figure")
    assert [p["class"][1] for p in worn.select(".picture")] == ["dress", "shoes"]
    assert [p["class"][1:] for p in modified.select(".picture")] == [["top", "changed"], ["bottom"], ["shoes"]]
    assert modified.select_one("img")["alt"] == "top, replaced"
    assert "by boxes: top, shoes; by ratios: bottom" in modified.get_text()
    whole = np.asarray(Image.open(io.BytesIO(dress_of(RED, BLUE))))
    assert (whole.shape, whole[10, 40].argmax(), whole[110, 40].argmax()) == ((120, 80, 3), 0, 2)
    assert dress_of(RED, b"torn") == RED


def test_pages_without_pairs_and_outfits_say_what_to_do_and_have_no_empty_parts(tmp_path):
    page, sheet = tmp_path / "mine.html", tmp_path / "compose.html"
    mining_report(str(page), {}, {}, Counted(), [], [], [], {})
    outfit_sheet(str(sheet), "Outfits", {}, {}, [])
    mined, composed = (BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser") for file in (page, sheet))
    assert [h2.get_text() for h2 in mined.select("h2")] == ["Pairs by class and split", "Tags without a pair"]
    assert "w2w ingest --kind=posts" in mined.get_text()
    assert composed.select("h2") == []
    assert "w2w tables --rejects" in composed.get_text()
    code = RejectCode.CROSSES_SPLIT
    mining_report(str(page), {}, {}, Counted(), [Reason(code, *_MEANINGS[code], 236, [])], [], [], {})
    assert "There are no pairs: why the tags have none stands below." in page.read_text(encoding="utf-8")
