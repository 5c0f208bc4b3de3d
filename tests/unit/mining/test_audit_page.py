from bs4 import BeautifulSoup

from tests.unit.images.samples import encoded, scene
from w2w.mining.audit.page import Leak, audit_report


def page(tmp_path, *args) -> BeautifulSoup:
    audit_report(str(tmp_path / "audit.html"), "Leak audit", {"tables": "splits"}, *args)
    text = (tmp_path / "audit.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    return BeautifulSoup(text, "html.parser")


def test_what_leaks_is_shown_side_by_side_and_escaped(tmp_path):
    leak = Leak(
        "picture", "a b", ("train", "test"), ((encoded(scene(), "PNG"), "product <b>1</b>"), (b"broken", "2")), "flipped"
    )
    found = page(tmp_path, [("picture: flipped", "test and train", 41)], [leak], 41)
    assert found.select_one(".tile b").text == "41"
    assert [td.text for td in found.select("td")] == ["picture: flipped", "test and train", "41"]
    sides = found.select(".side")
    assert [s.select_one("b").text for s in sides] == ["train", "test"]
    assert [s.select_one("small").text for s in sides] == ["product <b>1</b>", "2"]
    assert [i["alt"] for i in found.select("img")] == ["product <b>1</b>, in train"]  # what cannot be read has no picture
    assert found.select_one("[role=img]")["aria-label"] == "no picture: 2, in test"
    assert "in two splits" in found.main.p.text  # what it means, before anything else
    assert "1 of 41" in found.text


def test_nothing_leaks(tmp_path):
    found = page(tmp_path, [], [], 0)
    assert found.select_one(".tile b")["class"] == ["ok"]
    assert found.select_one(".tiles").find_next_sibling().text.startswith("Nothing leaks")  # before the facts
