"""The file of golden queries: whatever is wrong with it is one sentence that names the row."""

import json

import pytest

from w2w.errors import UsageError
from w2w.index.golden import Golden, read_golden


def write(tmp_path, text: str | bytes, name: str = "golden.csv") -> str:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(tmp_path / name)


def test_csv_and_json_lines_say_the_same(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    rows = "product_id,photo,expected,k,min_hits,category,note\n7,,8| 9 |8,5,1,shoes,ours\n,a.jpg,7,,,,\n"
    lines = [
        {"product_id": "7", "expected": ["8", "9"], "k": 5, "min_hits": 1, "category": "shoes", "note": "ours"},
        {"photo": str(tmp_path / "a.jpg"), "expected": ["7"], "k": None},
    ]
    as_csv = read_golden(write(tmp_path, b"\xef\xbb\xbf" + rows.encode()))
    as_json = read_golden(write(tmp_path, "\n\n".join(map(json.dumps, lines)), "golden.jsonl"))
    assert as_csv[0] == Golden("golden.csv, line 2", "product_id", "7", ("8", "9"), 5, 1, "shoes", "ours")
    assert [one.key for one in as_csv] == [one.key for one in as_json]
    assert as_csv[1].label == "golden.csv, line 3 (photo a.jpg)"
    assert as_json[1].where == "golden.jsonl, line 3"
    before = as_csv[1].key
    (tmp_path / "a.jpg").write_bytes(b"another picture")
    assert read_golden(str(tmp_path / "golden.csv"))[1].key != before, "another photo is another question"


WRONG = {
    "product_id,expected\n": "holds no query",
    "": "holds no query",
    "product,expected\n1,2\n": "column 'product' is none of a golden query. Did you mean 'product_id'",
    "product_id,expected\n1,2\n3\n": "line 3: has not as many values",
    "product_id,expected\n1,2,3\n": "line 2: has not as many values",
    "product_id,expected\n,2\n": "line 2: has no query: give exactly one of product_id, image_id, photo",
    "product_id,image_id,expected\n1,2,3\n": "line 2: has product_id and image_id",
    "product_id,expected\n1,|\n": "line 2: expected='\\[\\]': name at least one",
    "product_id,expected\n1,2|1\n": "line 2: product 1 is not among its own answers",
    "product_id,expected,k\n1,2,many\n": "line 2: k='many': a whole number from 1 to 100",
    "product_id,expected,k\n1,2,0\n": "line 2: k='0'",
    "product_id,expected,min_hits\n1,2,2\n": "line 2: min_hits='2': a whole number from 0 to 1",
    "product_id,expected\n1,2\n1,3\n": "line 3: asks the same as golden.csv, line 2",
    "photo,expected\nnowhere.jpg,3\n": "line 2: photo='.*nowhere.jpg': there is no such file",
    "photo,expected\nhttps://x.test/a.jpg,3\n": "line 2: photo=.*must be a file",
    "photo,expected\nftp://x.test/a.jpg,3\n": "line 2: photo: ",
    'product_id,expected\n"1,2\n': "is not CSV",
    b"product_id,expected\n\xff,2\n": "is not UTF-8 text",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_wrong_row_is_named(tmp_path, text):
    with pytest.raises(UsageError, match=WRONG[text]):
        read_golden(write(tmp_path, text))


WRONG_JSON = {
    "[1]": "line 1: is not a JSON object",
    "{": "line 1: is not JSON",
    '\n{"product_id": 7, "expected": ["1"]}': "line 2: product_id='7': is not text",
    '{"product_id": "7", "expected": "1"}': "line 1: expected='1': name at least one",
    '{"product_id": "7", "expected": [["1"]]}': "line 1: expected=",
    '{"product_id": "7", "expected": ["1"], "k": true}': "line 1: k='True'",
    '{"product_id": "7", "expected": ["1"], "kk": 3}': "line 1: field 'kk'",
}


@pytest.mark.parametrize("text", WRONG_JSON, ids=range(len(WRONG_JSON)))
def test_a_wrong_line_is_named(tmp_path, text):
    with pytest.raises(UsageError, match=WRONG_JSON[text]):
        read_golden(write(tmp_path, text, "golden.jsonl"))


def test_a_file_that_is_not_there_or_too_long(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="there is no such file"):
        read_golden(str(tmp_path / "golden.csv"))
    monkeypatch.setattr("w2w.index.golden._MOST_ROWS", 1)
    with pytest.raises(UsageError, match="more than 1 queries"):
        read_golden(write(tmp_path, "product_id,expected\n1,2\n2,3\n"))
