"""Feeds of every kind, whole and broken: each input row comes out once, as a row or as a reject."""

import csv
import gzip
import hashlib
import json
import struct
from pathlib import Path

import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import BadInput, RejectCode, UsageError
from w2w.ingest import dicts, raw, trees
from w2w.ingest.feed import FEED_SCHEMA, FeedConfig, check_feed, read_feed

HEADER = "product_id,title,category,price,image"


def read(config: FeedConfig, batch_rows: int = 20_000) -> tuple[list[dict], list[dict]]:
    batches = list(read_feed(config, batch_rows))
    for batch in batches:
        assert batch.rows.schema.equals(FEED_SCHEMA)
        batch.rows.validate(full=True)
        batch.rejects.validate(full=True)
    rows = [row for b in batches for row in b.rows.to_pylist()]
    return rows, [row for b in batches for row in b.rejects.to_pylist()]


def feed(folder: Path, *lines: str, name: str = "feed.csv", header: str = HEADER, **settings: object) -> FeedConfig:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return FeedConfig(uri=str(path), **settings)


def codes(rejects: list[dict]) -> list[tuple[str, int]]:
    """(code, line) of each reject."""
    return [(r["code"], int(r["source"].rpartition(":")[2])) for r in rejects]


def warned(rows: list[dict]) -> list[tuple[str, str, str]]:
    """(product_id, column, what is said) of each value that could not be read."""
    return [(r[schema.PRODUCT_ID], w["column"], w["detail"]) for r in rows for w in r["warned"] or []]


def test_csv_row(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"12345")
    rows, rejects = read(feed(tmp_path, "007, Red shirt ,Shirts,19.90,a/1.jpg", "8,,,,https://x.test/8.jpg?w=1"))
    assert rejects == []
    stat = (tmp_path / "a/1.jpg").stat()
    first, second = rows
    assert first[schema.PRODUCT_ID] == "007"
    assert first[schema.TITLE] == "Red shirt"
    assert first[schema.CATEGORY] == "shirts"
    assert first[schema.PRICE] == 19.9
    assert first[schema.IMAGE_URI] == str(tmp_path / "a/1.jpg")
    assert first[schema.IMAGE_FINGERPRINT] == f"5-{stat.st_mtime_ns}"
    assert first[schema.SOURCE] == f"{tmp_path}/feed.csv:2"
    assert second[schema.IMAGE_URI] == "https://x.test/8.jpg?w=1"
    assert second[schema.IMAGE_FINGERPRINT] == ""
    assert (second[schema.TITLE], second[schema.PRICE], second[schema.CATEGORY]) == (None, None, "etc")


def test_real_catalog(real_images):
    config = FeedConfig(
        uri=str(real_images / "catalog/products.csv"),
        columns={"category": "product_type"},
        category_map={"tops": "top", "Tshirts ": "top", "Casual Shoes": "shoes"},
    )
    check_feed(config)
    rows, rejects = read(config)
    with open(config.uri, newline="") as f:
        theirs = {r["product_id"]: r for r in csv.DictReader(f)}
    assert rejects == []
    assert [r[schema.PRODUCT_ID] for r in rows] == list(theirs)
    ours = {"Tops": "top", "Tshirts": "top", "Casual Shoes": "shoes"}
    for row in rows:
        source = theirs[row[schema.PRODUCT_ID]]
        assert row[schema.CATEGORY] == ours.get(source["product_type"], "etc")
        assert dict(row[schema.ATTRIBUTES])["colour"] == source["colour"]
        assert row[schema.IMAGE_FINGERPRINT].startswith(f"{Path(row[schema.IMAGE_URI]).stat().st_size}-")


@pytest.mark.parametrize("encoding", ["hex", "rot13", "zlib", "utf\0", "utf-99"])
def test_an_encoding_that_is_none_of_text(tmp_path, encoding):
    with pytest.raises(UsageError, match=r"feed\.encoding=.*no such encoding"):
        check_feed(feed(tmp_path, "1,T,top,1,1.jpg", encoding=encoding))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_other_encodings(tmp_path, encoding):
    path = tmp_path / "feed.csv"
    path.write_bytes((HEADER + "\n1,café,top,1,1.jpg\n").encode(encoding))
    config = FeedConfig(uri=str(path), encoding=encoding)
    check_feed(config)
    assert read(config)[0][0][schema.TITLE] == "café"


# values


def test_rejected_values(tmp_path):
    config = feed(
        tmp_path,
        ",t,top,1,1.jpg",
        "2,t,top,1, ",
        f"{'3' * 513},t,top,1,3.jpg",
        f"{'4' * 512},t,top,1,4.jpg",
        '"5\n",t,top,1,5.jpg',
        '"5\n5",t,top,1,5.jpg',
        "8,t,top,1,../../etc/passwd",
        "9,t,top,1,file:///etc/passwd",
        "10,t,top,1,/etc/passwd",
        "11,t,top,1,https://bob:hunter2@x.test/a.jpg",
    )
    rows, rejects = read(config)
    assert [r[schema.PRODUCT_ID] for r in rows] == ["4" * 512, "5"]
    by_line = {line: code for code, line in codes(rejects)}
    assert list(dict(sorted(by_line.items())).values()) == [
        RejectCode.MISSING_FIELD,
        RejectCode.MISSING_FIELD,
        RejectCode.BAD_VALUE,
        RejectCode.BAD_VALUE,
        *[RejectCode.BLOCKED_URL] * 4,
    ]
    assert "hunter2" not in str(rejects)
    keys = {r["key"] for r in rejects}
    of_lines = {f"{config.uri}:{line}" for line in (2, 4, 8)}  # of products that nobody can tell
    assert keys == {"2", "8", "9", "10", "11"} | of_lines


def test_a_batch_in_parts_has_its_rejects_once():
    source = pa.array(["x:1", "x:2", "x:3"])
    rejects = raw.reject_table(
        [("x:4", RejectCode.MALFORMED_ROW, "few", "x:4"), ("x:5", RejectCode.MALFORMED_ROW, "many", "x:5")]
    )
    whole = raw.RawBatch({schema.PRODUCT_ID: source}, raw.no_attributes(3), source, rejects, num_aside=2)
    parts = [whole.slice(start, 2) for start in (0, 2)]
    assert [part.source.to_pylist() for part in parts] == [["x:1", "x:2"], ["x:3"]]
    assert [(part.rejects.num_rows, part.num_aside) for part in parts] == [(2, 2), (0, 0)]


@pytest.mark.parametrize("batch_rows", [1, 2, 20_000])
def test_a_reject_is_told_once_however_the_feed_is_cut(tmp_path, batch_rows):
    lines = ["1,t,top,1,1.jpg", "too,few", "2,t,top,1,2.jpg", ",t,top,1,3.jpg", "3,t,top,1,3.jpg", "4,t,top,1,4.jpg"]
    rows, rejects = read(feed(tmp_path, *lines), batch_rows)
    assert [r[schema.PRODUCT_ID] for r in rows] == ["1", "2", "3", "4"]
    assert sorted(codes(rejects), key=lambda c: c[1]) == [(RejectCode.MALFORMED_ROW, 3), (RejectCode.MISSING_FIELD, 5)]


def test_prices_and_currencies(tmp_path):
    lines = ["1,5,EUR,x.jpg", "2,15.00 USD,,x.jpg", "3,15.00usd,gbp,x.jpg", "4,0.5,,x.jpg"]
    rows, rejects = read(feed(tmp_path, *lines, header="product_id,price,currency,image"))
    assert rejects == []
    assert [(r[schema.PRICE], r[schema.CURRENCY]) for r in rows] == [(5.0, "EUR"), (15.0, "USD"), (15.0, "GBP"), (0.5, None)]
    names = {"euro": "EUR", "Euros": "EUR", "€": "EUR", "zł": "PLN", "US$": "USD", "yen": "JPY", "EURO?": None, "abc": None}
    lines = [f"{i},1,{name},x.jpg" for i, name in enumerate(names)] + ["98,15.00 XYZ,,x.jpg", f"99,1,{'e' * 500},x.jpg"]
    rows, rejects = read(feed(tmp_path, *lines, header="product_id,price,currency,image"))
    assert rejects == []
    assert [r[schema.CURRENCY] for r in rows] == [*names.values(), None, None]
    numbers = ["1,1e2,,x.jpg", "2,23.788099999999996,,x.jpg", "3,1'299'000.50,,x.jpg", "4,1\u2019299.00 CHF,,x.jpg"]
    rows, rejects = read(feed(tmp_path, *numbers, header="product_id,price,currency,image"))
    assert rejects == []
    assert [r[schema.PRICE] for r in rows] == [100.0, 23.788099999999996, 1299000.5, 1299.0]
    marked = ["$5", "US$ 5.00", "€\u00a05", "5 zł", "5,00 Kč", "kr 5", "CHF 5.00", "EUR5", "5 kr."]
    rows, rejects = read(
        feed(tmp_path, *(f'{n},"{p}",,x.jpg' for n, p in enumerate(marked)), header="product_id,price,currency,image")
    )
    said = [(r[schema.PRICE], r[schema.CURRENCY]) for r in rows]
    assert said == [(5, "USD"), (5, "USD"), (5, "EUR"), (5, "PLN"), (None, None), (5, None), (5, "CHF"), (5, "EUR"), (5, None)]
    for bad in ("nan", "inf", "1e400", "1e15", "-5", "12'34", "1.2.3", "5 5", "٣", "9" * 400):
        rows, rejects = read(feed(tmp_path, f'1,"{bad}",,x.jpg', header="product_id,price,currency,image"))
        assert rejects == []
        assert [(r[schema.PRICE], warned([r])) for r in rows] == [
            (None, [("1", "price", f"not like 1299.90 or 1299.90 EUR: {bad[:80]!r}")])
        ], bad


def test_what_cannot_be_read_is_null_and_said_and_costs_no_row(tmp_path):
    header = "product_id,title,price,currency,url,image"
    lines = ["1,a,-1,EUR,https://x.test/1,1.jpg", "2,b,5,Taler,javascript:alert(1),2.jpg", "3,c,5,EUR,/p/3,3.jpg"]
    lines += ['4,d,"1,299",?,https://,4.jpg', '5,e,,,"a\tb",5.jpg', "6,,x,,,"]
    rows, rejects = read(feed(tmp_path, *lines, header=header))
    assert [(r[schema.PRICE], r[schema.CURRENCY], r[schema.URL]) for r in rows] == [
        (None, "EUR", "https://x.test/1"), (5.0, None, None), (5.0, "EUR", "/p/3"), (None, None, None), (None, None, None),
    ]  # fmt: skip
    assert [(i, column) for i, column, _ in warned(rows)] == [
        ("1", "price"), ("2", "currency"), ("2", "url"), ("4", "price"), ("4", "currency"), ("4", "url"), ("5", "url"),
    ]  # fmt: skip
    assert [(r["key"], r["code"]) for r in rejects] == [("6", RejectCode.MISSING_FIELD)]
    [batch] = read_feed(FeedConfig(uri=str(tmp_path / "feed.csv")))
    assert batch.unread == {"price": 2, "currency": 2, "url": 3}


def test_a_list_in_place_of_a_value_costs_only_the_value(tmp_path):
    records = [
        {"product_id": "1", "image": "1.jpg", "price": [1, 2], "title": {"de": "x"}},
        {"product_id": ["2"], "image": "2.jpg"},
        {"product_id": "3", "image": "3.jpg", "price": 3},
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, records)))
    rows, rejects = read(FeedConfig(uri=str(tmp_path / "f.jsonl")))
    assert [(r[schema.PRODUCT_ID], r[schema.PRICE], r[schema.TITLE]) for r in rows] == [("1", None, None), ("3", 3.0, None)]
    said = [("1", "title", "title holds an object, not one value"), ("1", "price", "price holds a list, not one value")]
    assert warned(rows) == said
    assert codes(rejects) == [("bad_value", 2)]


def test_first_good_row_of_a_product_is_kept_over_batches(tmp_path):
    lines = [f"{i % 50},row {i},top,1,{i}.jpg" for i in range(200)]
    lines[3] = "3,no picture,top,1,"
    rows, rejects = read(feed(tmp_path, *lines), batch_rows=7)
    kept = {r[schema.PRODUCT_ID]: r[schema.TITLE] for r in rows}
    assert len(rows) == 50
    assert kept["3"] == "row 53"
    assert kept["4"] == "row 4"
    assert len(rows) + len(rejects) == 200
    duplicates = [r for r in rejects if r["code"] == RejectCode.DUPLICATE_KEY]
    assert len({r["key"] for r in duplicates}) == 149
    assert "'4'" in next(r["detail"] for r in duplicates if r["source"].endswith(":56"))


def test_attributes(tmp_path):
    header = "product_id,image,zip,fit,colour"
    everything, _ = read(feed(tmp_path, "1,1.jpg,yes,,red", "2,2.jpg,,,", header=header))
    assert [r[schema.ATTRIBUTES] for r in everything] == [[("colour", "red"), ("zip", "yes")], []]
    some, _ = read(feed(tmp_path, "1,1.jpg,yes,,red", header=header, attributes=["colour"]))
    assert some[0][schema.ATTRIBUTES] == [("colour", "red")]
    none, _ = read(feed(tmp_path, "1,1.jpg,yes,,red", header=header, attributes=[]))
    assert none[0][schema.ATTRIBUTES] == []


def row_digest(folder: Path, line: str, header: str = "product_id,title,image,fit,colour") -> str:
    return read(feed(folder, line, header=header))[0][0][schema.ROW_DIGEST]


def test_row_digest_follows_what_the_feed_says(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    base = row_digest(tmp_path, "1,ab,1.jpg,slim,red")
    assert base == row_digest(tmp_path, "1, ab ,1.jpg,slim,red")
    assert base == row_digest(tmp_path, "red,1,ab,1.jpg,slim", header="colour,product_id,title,image,fit")
    others = {
        row_digest(tmp_path, "1,abc,1.jpg,slim,red"),
        row_digest(tmp_path, "1,ab,1.jpg,slimr,ed"),
        row_digest(tmp_path, "1,ab,1.jpg,,red"),
        row_digest(tmp_path, "1,,1.jpg,slim,red"),
        row_digest(tmp_path, "1,ab,2.jpg,slim,red"),
    }
    (tmp_path / "1.jpg").write_bytes(b"22")
    others.add(row_digest(tmp_path, "1,ab,1.jpg,slim,red"))
    assert len(others | {base}) == 7


def test_row_digest_is_sha256_of_netstrings(tmp_path):
    line, header = "1,ab,2.5,https://x.test/é.jpg,slim", "product_id,title,price,image,fit"
    image_uri = "https://x.test/é.jpg"
    price_bits = str(struct.unpack("<q", struct.pack("<d", 2.5))[0])
    values = ["1", "ab", None, price_bits, None, "etc", None, "3:fit,4:slim,", image_uri, None, None, ""]
    text = "".join("-" if v is None else f"{len(v.encode())}:{v}," for v in values)
    assert row_digest(tmp_path, line, header) == hashlib.sha256(text.encode()).hexdigest()[:32]


# JSON lines


def test_json_lines_without_an_object(tmp_path):
    path = tmp_path / "feed.jsonl"
    path.write_text('{\n"product_id": 1,\n"image": "a.jpg"\n}\n')
    with pytest.raises(BadInput, match="no JSON object with fields, one per line or in an array"):
        check_feed(FeedConfig(uri=str(path)))


@pytest.mark.parametrize("name", ["feed.jsonl", "feed.jsonl.gz", "feed.jsonl.zst"])
def test_jsonl(tmp_path, name):
    lines = [
        json.dumps({"sku": "007", "img": "1.jpg", "price": 19.90, "tags": ["a", "b"], "new": True, "fit": None}),
        "",
        "{broken",
        "[1]",
        json.dumps({"sku": ["x"], "img": "2.jpg"}),
        '{"sku": "\\ud800", "img": "3.jpg"}',
        "[" * 100_000,
        json.dumps({"sku": 8, "img": "4.jpg", "price": "5"}),
    ]
    text = "\n".join(lines).encode()
    path = tmp_path / name
    if name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as f:
            f.write(text)
    else:
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    config = FeedConfig(uri=str(path), columns={"product_id": "sku", "image": "img"})
    check_feed(config)
    rows, rejects = read(config)
    assert [r[schema.PRODUCT_ID] for r in rows] == ["007", "8"]
    assert rows[0][schema.ATTRIBUTES] == [("new", "true"), ("tags", '["a", "b"]')]
    assert rows[0][schema.PRICE] == 19.9
    assert rows[1][schema.SOURCE].endswith(":8")
    assert sorted(codes(rejects), key=lambda c: c[1]) == [
        ("malformed_row", 3),
        ("malformed_row", 4),
        ("bad_value", 5),
        ("bad_value", 6),
        ("malformed_row", 7),
    ]


def test_a_batch_of_large_json_lines_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(dicts, "MAX_BATCH_BYTES", 2000)
    lines = [json.dumps({"product_id": str(i), "image": "a", "text": "x" * 900}) for i in range(7)]
    config = feed(tmp_path, *lines[1:], header=lines[0], name="feed.jsonl")
    assert [b.rows.num_rows for b in read_feed(config)] == [3, 3, 1]


def test_endless_json_line_is_one_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "feed.jsonl"
    path.write_text('{"product_id": "1", "image": "a"}\n' + "x" * 5500 + '\n{"product_id": "2", "image": "b"}\n')
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert [(r[schema.PRODUCT_ID], r[schema.SOURCE][-2:]) for r in rows] == [("1", ":1"), ("2", ":3")]
    assert codes(rejects) == [("malformed_row", 2)]


@pytest.mark.parametrize("name", ["feed.csv.gz", "feed.jsonl.gz"])
def test_cut_off_archive_is_named(tmp_path, name):
    path = tmp_path / name
    numbers = range(100_000)
    lines = [f'{{"product_id": "{i}", "image": "{i}.jpg"}}' if "json" in name else f"{i},{i}.jpg" for i in numbers]
    whole = gzip.compress("\n".join([*([] if "json" in name else ["product_id,image"]), *lines]).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=f"{name}.*to its end"):
        read(FeedConfig(uri=str(path)))


@pytest.mark.parametrize(
    ("prices", "settings", "numbers"),
    [
        (["12,90", "1.299,00 EUR", "1299", "1 299,50 €"], {}, [12.9, 1299.0, 1299.0, 1299.5]),
        (["12.90", "1299", "7.5 EUR", "3"], {}, [12.9, 1299.0, 7.5, 3.0]),
        (["1.299", "5", "7", "9"], {"decimal": ","}, [1299.0, 5.0, 7.0, 9.0]),
        (["1.299", "5", "7", "9"], {}, [1.299, 5.0, 7.0, 9.0]),
        (["1,299", "5", "7", "9"], {"decimal": ","}, [1.299, 5.0, 7.0, 9.0]),
    ],
)
def test_a_decimal_comma_is_told_from_the_prices(tmp_path, prices, settings, numbers):
    path = tmp_path / "feed.csv"
    path.write_text("product_id;price;image\n" + "".join(f"{i};{p};{i}.jpg\n" for i, p in enumerate(prices)), encoding="utf-8")
    rows, rejects = read(FeedConfig(uri=str(path), csv_delimiter=";", currency="EUR", **settings))
    assert [r["price"] for r in rows] == numbers
    assert [r["currency"] for r in rows] == ["EUR"] * 4
    assert rejects == []


def test_prices_with_both_signs_are_read_with_points(tmp_path):
    path = tmp_path / "feed.csv"
    path.write_text("product_id;price;image\n1;12,90;1.jpg\n2;12.90 USD;2.jpg\n")
    rows, rejects = read(FeedConfig(uri=str(path), csv_delimiter=";", currency="eur"))
    assert [r["price"] for r in rows] == [None, 12.9]
    assert [said[:2] for said in warned(rows)] == [("1", "price")]
    assert [r["currency"] for r in rows] == [None, "USD"]
    assert rejects == []


def test_of_a_category_path_the_longest_mapped_beginning_counts(tmp_path):
    path = tmp_path / "feed.csv"
    said = [
        "Apparel > Topwear > Tshirts",
        "Apparel>Topwear > Shirts",
        "APPAREL / Shoes",
        "Apparel",
        "Home > Lamps",
        "Home > Lamps",
    ]
    path.write_text("product_id,category,image\n" + "".join(f"{i},{c},{i}.jpg\n" for i, c in enumerate(said)))
    config = FeedConfig(
        uri=str(path), category_map={"apparel > topwear": "top", "Apparel > Topwear > Shirts": "outer", "Apparel": "dress"}
    )
    [batch] = read_feed(config)
    assert batch.rows.column("category").to_pylist() == ["top", "outer", "dress", "dress", "etc", "etc"]
    assert batch.unmapped == {"Home > Lamps": 2}


@pytest.mark.parametrize(("settings", "word"), [({"decimal": ";"}, "decimal"), ({"currency": "EURO"}, "ISO 4217")])
def test_signs_and_currencies_that_are_none(tmp_path, settings, word):
    with pytest.raises(UsageError, match=word):
        check_feed(FeedConfig(uri=str(tmp_path), **settings))
