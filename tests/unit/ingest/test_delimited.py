"""CSV, whole and broken: each line comes out once, as a row or as a reject, with its number."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.ingest.test_feed import HEADER, codes, feed, read, warned
from w2w import schema
from w2w.errors import BadInput, UsageError
from w2w.ingest import delimited
from w2w.ingest.feed import FeedConfig, check_feed
from w2w.ingest.text import _LineEnds


def test_rows_that_end_with_carriage_returns_alone(tmp_path):
    r"""Excel's "CSV (Macintosh)": \r ends a row, and \n breaks a line inside a value."""
    path = tmp_path / "mac.csv"
    path.write_bytes(b'product_id,title,image\r1,A,a.jpg\r2,"B\n2",b.jpg\r\r3,x\r')
    config = FeedConfig(uri=str(path))
    check_feed(config)
    rows, rejects = read(config)
    assert [(r["product_id"], r["title"], r["source"]) for r in rows] == [("1", "A", f"{path}:2"), ("2", "B\n2", f"{path}:3")]
    assert codes(rejects) == [("malformed_row", 6)]
    jsonl = tmp_path / "mac.jsonl"
    jsonl.write_bytes(b'{"product_id": "1", "image": "a"}\r{"product_id": "2", "image": "b"}\r')
    assert [r["product_id"] for r in read(FeedConfig(uri=str(jsonl)))[0]] == ["1", "2"]
    path.write_bytes(b'product_id,title,image\r\n1,"A\r\nB\rC",a.jpg\r\n')
    assert [r["title"] for r in read(config)[0]] == ["A\r\nB\rC"], "values of other files stay as they are"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_line_ends_are_told_wherever_the_text_is_cut(size):
    for text, expected in {
        "a,b\r1,2\r": "a,b\n1,2\n",
        "a,b\r\n1,2\r3\n": "a,b\r\n1,2\r3\n",
        "a\n1\r": "a\n1\r",
        "": "",
        "a": "a",
        "\r\r\n": "\n\n\n",
    }.items():
        line_ends = _LineEnds()
        assert "".join(line_ends(text[i : i + size]) for i in range(0, len(text), size)) == expected


def test_broken_rows_with_carriage_returns_and_nothings(tmp_path):
    path = tmp_path / "feed.csv"
    path.write_bytes(b'product_id,title,image\n1,a\rb,c\n2,\0,b.jpg\n3,"x\ry\n4,z,d.jpg\n')
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert [r["product_id"] for r in rows] == ["2", "4"]
    assert {r["code"] for r in rejects} == {"malformed_row"}
    path.write_bytes(b"product_id,image," + b"x" * 200_000 + b"\n1,a,b\n")
    with pytest.raises(BadInput, match="the header cannot be read: field larger"):
        check_feed(FeedConfig(uri=str(path)))


def test_quotes_newlines_blank_lines_and_line_numbers(tmp_path):
    config = feed(
        tmp_path,
        '1,"two\nlines, ""quoted""",top,1,1.jpg',  # lines 2-3
        "",
        "2,short",  # 5
        "3,t,top,1,3.jpg",  # 6
        ",t,top,x,4.jpg",  # 7
        "5,a,b,c,d,e,f",  # 8
        "6,t,top,1,6.jpg",  # 9
    )
    rows, rejects = read(config)
    assert [(r[schema.PRODUCT_ID], int(r[schema.SOURCE].rpartition(":")[2])) for r in rows] == [("1", 2), ("3", 6), ("6", 9)]
    assert rows[0][schema.TITLE] == 'two\nlines, "quoted"'
    assert sorted(codes(rejects), key=lambda c: c[1]) == [("malformed_row", 5), ("missing_field", 7), ("malformed_row", 8)]


def test_line_numbers_hold_over_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "CSV_BLOCK_BYTES", 2000)
    lines, expected, bad = [], [], []
    line = 2
    for i in range(500):
        if i % 7 == 0:
            text = f"{i},short"
            bad.append(line)
        elif i % 5 == 0:
            text = f'{i},"a\nb\nc",top,1,{i}.jpg'
            expected.append((str(i), line))
        else:
            text = f"{i},t,top,1,{i}.jpg"
            expected.append((str(i), line))
        lines.append(text)
        line += text.count("\n") + 1
    rows, rejects = read(feed(tmp_path, *lines), batch_rows=9)
    assert [(r[schema.PRODUCT_ID], int(r[schema.SOURCE].rpartition(":")[2])) for r in rows] == expected
    assert codes(rejects) == [("malformed_row", n) for n in bad]


def test_lines_that_an_open_quote_swallowed_are_read(tmp_path):
    config = feed(
        tmp_path,
        "1,t,top,1,1.jpg",
        '2,"never closed,top,1,2.jpg',
        "3,t,top,1,3.jpg",
        '4,"fine, with comma",top,1,4.jpg',
        "5,t,top,1,5.jpg",
    )
    rows, rejects = read(config)
    assert sorted(r[schema.PRODUCT_ID] for r in rows) == ["1", "3", "4", "5"]
    assert {r[schema.PRODUCT_ID]: r[schema.SOURCE].rpartition(":")[2] for r in rows}["4"] == "5"
    assert codes(rejects) == [("malformed_row", 3)]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lines_that_a_quote_of_the_last_column_swallowed_to_the_end_of_the_file_are_read(tmp_path, line_end):
    path = tmp_path / "feed.csv"
    texts = ['1,a.jpg,"two\nlines"', '2,b.jpg,"34 inch', '3,c.jpg,""', "4,d.jpg", '5,e.jpg,""']
    path.write_text(line_end.join(["product_id,image,title", *texts, "", ""]), encoding="utf-8", newline="")
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert [r[schema.PRODUCT_ID] for r in rows] == ["1", "3", "5"]
    assert [r[schema.SOURCE].rpartition(":")[2] for r in rows] == ["2", "5", "7"]
    assert codes(rejects) == [("malformed_row", 4), ("malformed_row", 6)]


@pytest.mark.parametrize(
    ("ends", "titles"),
    [
        ('1,a,"x\ny"', ["x\ny"]),
        ('1,a,"x\ny"\n\n', ["x\ny"]),
        ('1,a,"x\n""y"""', ['x\n"y"']),
        ('1,a,"x\ny"\n2,"b\n3,c,t', ["x\ny", "t"]),
    ],
)
def test_a_last_value_of_several_lines_that_is_closed_is_one_row(tmp_path, ends, titles):
    path = tmp_path / "feed.csv"
    path.write_text("product_id,image,title\n" + ends, encoding="utf-8")
    assert sorted(r[schema.TITLE] for r in read(FeedConfig(uri=str(path)))[0]) == sorted(titles)


def test_quote_that_stays_open_over_blocks_ends_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "CSV_BLOCK_BYTES", 1000)
    lines = [f"{i},t,top,1,{i}.jpg" for i in range(400)]
    lines[100] = '100,"open,top,1,100.jpg'
    with pytest.raises(BadInput, match=r"feed\.csv:\d+: .*never closed"):
        read(feed(tmp_path, *lines))


def test_bytes_in_another_encoding_cost_one_value(tmp_path):
    path = tmp_path / "feed.csv"
    good = "".join(f"{i},café,top,1,{i}.jpg\n" for i in range(300)).encode()
    path.write_bytes(
        b"\xef\xbb\xbf" + HEADER.encode() + b"\n" + good + b"x,caf\xe9,top,1,x.jpg\ncaf\xe9,t,top,1,y.jpg\ny,caf\xe9\n"
    )
    config = FeedConfig(uri=str(path))
    check_feed(config)
    rows, rejects = read(config)
    assert len(rows) == 301
    assert rows[0][schema.TITLE] == "café"
    assert (rows[300][schema.PRODUCT_ID], rows[300][schema.TITLE]) == ("x", None)
    assert warned(rows) == [("x", "title", "bytes that are not text in this encoding")]
    assert codes(rejects) == [("malformed_row", 303), ("malformed_row", 304)]


def test_windows_line_ends_and_tabs(tmp_path):
    path = tmp_path / "feed.tsv"
    path.write_bytes(b"product_id\ttitle\timage\r\n1\tt\t1.jpg\r\n2\tt\t2.jpg\r\n")
    rows, _ = read(FeedConfig(uri=str(path), csv_delimiter="\t"))
    assert [r[schema.PRODUCT_ID] for r in rows] == ["1", "2"]
    assert rows[1][schema.IMAGE_URI].endswith("/2.jpg")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["{},t,{}.jpg", '{},"a\nb",{}.jpg', '{},"a""b",{}.jpg', "{},short", "", '{},"open,{}.jpg', "{},a,b,c"])
    ),
    st.sampled_from([200, 300, 1_000_000]),
)
def test_every_line_is_accounted_for_where_it_stands(tmp_path, shapes, block_bytes):
    lines = [shape.format(i, i) for i, shape in enumerate(shapes)]
    config = feed(tmp_path, *lines, header="product_id,title,image")
    numbered = Path(config.uri).read_text().split("\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "CSV_BLOCK_BYTES", block_bytes)
        try:
            rows, rejects = read(config)
        except UsageError:
            assert any("open" in line for line in lines)
            return
    for row in rows:
        at = int(row[schema.SOURCE].rpartition(":")[2])
        assert numbered[at - 1].startswith(row[schema.PRODUCT_ID] + ",")
    if not any("open" in line for line in lines):
        good = [str(i) for i, shape in enumerate(shapes) if shape.endswith("{}.jpg")]
        assert [r[schema.PRODUCT_ID] for r in rows] == good
        assert len(rejects) == sum(1 for line in lines if line) - len(good)
    told = {int(r["source"].rpartition(":")[2]) for r in rejects}
    assert all(numbered[n - 1].strip() for n in told)
