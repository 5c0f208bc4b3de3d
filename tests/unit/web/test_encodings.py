"""Encodings by the labels of the web, and srcset by the HTML standard's algorithm."""

import pytest

from w2w.crawl.srcset import largest
from w2w.web.encodings import codec_of, decoded


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        *(
            (label, "cp1252")
            for label in ("iso-8859-1", "ISO_8859-1", "latin1", "us-ascii", "ascii", " Windows-1252 ", "x-cp1252")
        ),
        *((label, "gb18030") for label in ("gb2312", "gbk", "chinese", "x-gbk", "GB18030")),
        *((label, "cp949") for label in ("euc-kr", "ks_c_5601-1987", "korean", "windows-949")),
        *((label, "cp932") for label in ("shift_jis", "sjis", "x-sjis", "windows-31j", "ms_kanji")),
        *((label, "cp874") for label in ("tis-620", "iso-8859-11", "windows-874")),
        ("iso-8859-9", "cp1254"),
        ("big5", "big5hkscs"),
        ("unicode", "utf-16-le"),
        ("utf8", "utf-8"),
        *((label, None) for label in ("hex", "base64", "rot13", "utf-7", "idna", "unicode_escape", "klingon", "", "a\x00b")),
    ],
)
def test_labels(label, codec):
    assert codec_of(label) == codec


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"<meta charset=iso-8859-1>49,90 \x80", "", "49,90 €"),
        (b"49,90 \x80", "text/html; charset=ISO-8859-1", "49,90 €"),
        ("<meta charset=shift_jis>①髙".encode("cp932"), "", "①髙"),
        ("<meta charset=euc-kr>뷁".encode("cp949"), "", "뷁"),
        (b"<!-- <meta charset=utf-16> --><meta charset=iso-8859-2>\xb1", "", "ą"),
        (b"x" * 100_000 + b"<META http-equiv='Content-Type' content='text/html; charset=iso-8859-2'>\xb1", "", "ą"),
        ("<?xml version='1.0' encoding='koi8-r'?>Платье".encode("koi8-r"), "", "Платье"),
        ("<meta charset=utf-16>Платье".encode(), "", "Платье"),
        ("Платье".encode("utf-8-sig"), "text/html; charset=koi8-r", "Платье"),
        ("<p>dress</p> robe é".encode("utf-16-be"), "", "robe é"),
        (b"\x00\xff<<html><body><h1>robe d'\xe9t\xe9", "", "<h1>robe d'été"),
        ("<p>a lone\x00 zero byte, été".encode(), "", "a lone zero byte, été"),
    ],
)
def test_decoded(body, content_type, text):
    assert decoded(body, content_type).endswith(text)


@pytest.mark.parametrize("body", [b"<meta " * 500_000, b"<!--" * 500_000, b"<meta charset" * 200_000])
def test_no_page_makes_the_search_long(body):
    assert decoded(body).startswith("<")


@pytest.mark.parametrize(
    ("srcset", "url"),
    [
        ("/w_200,h_300/i1.jpg 200w, /w_800,h_900/i2.jpg 800w", "/w_800,h_900/i2.jpg"),
        ("/b.jpg 800w, /a.jpg 200w", "/b.jpg"),
        ("/a.jpg 1x,/b.jpg 2.5x", "/b.jpg"),
        ("/a.jpg, /b.jpg 1.5x", "/b.jpg"),
        ("/a.jpg,\n /b.jpg", "/a.jpg"),
        ("/a,b.jpg", "/a,b.jpg"),
        (" ,, /a.jpg 640w 480h ,/b.jpg 320w", "/a.jpg"),
        ("data:image/gif;base64,R0lGOD 1w, /a.jpg 640w", "/a.jpg"),
        ("/a.jpg 1x (x, y), /b.jpg 2x", "/b.jpg"),
        ("/a.jpg huge, /b.jpg 1x", "/b.jpg"),
        ("/a.jpg", "/a.jpg"),
        ("", ""),
        (" , ", ""),
    ],
)
def test_largest_of_a_srcset(srcset, url):
    assert largest(srcset) == url


def test_a_long_srcset_is_read_in_one_go():
    assert largest("(" * 200_000) == "(" * 200_000
    assert largest("a (" * 100_000 + ", b 2x") == "a"
