"""Prices as shops of many countries write them: never a thousand times too much or too little."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2w.ingest import feed as feeds
from w2w.ingest.amounts import BOTH, are_open, decimal_sign, numbers
from w2w.ingest.feed import FeedConfig, read_feed


def number(text: str, decimal: str = "") -> float | None:
    return numbers(pa.array([text]), decimal)[0].as_py()


@pytest.mark.parametrize("decimal", ["", ".", ",", BOTH])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$1,299.99", 1299.99),
        ("1,299.99 USD", 1299.99),
        ("GBP 1,019.99", 1019.99),
        ("1,234,567.89", 1234567.89),
        ("1,29,999.00 INR", 129999),
        ("12,99,000", 1299000),
        ("1.299,00 EUR", 1299),
        ("1.234.567,8", 1234567.8),
        ("1.299.000 VND", 1299000),
        ("1 299,00 kr", 1299),
        ("1 299.50", 1299.5),
        ("CHF 1'299.00", 1299),
        ("CHF 1'299,500", 1299.5),
        ("CHF 1\u2019299.-", 1299),
        ("CHF 12.-", 12),
        ("12,\u2013 €", 12),
        ("0.500", 0.5),
        ("1299.500", 1299.5),
        ("23.788099999999996", 23.788099999999996),
        ("1e2", 100),
        ("1,29,99", None),
        ("1.2.3", None),
        ("1,299.", None),
        ("12,34.56", None),
        ("5 5", None),
        ("12'34", None),
        ("-5", None),
        ("1e400", None),
    ],
)
def test_a_price_that_tells_by_itself(text, decimal, said):
    assert number(text, decimal) == said


@pytest.mark.parametrize(
    ("text", "point", "comma", "nothing"),
    [
        ("1,299", 1299, 1.299, None),
        ("1,299 EUR", 1299, 1.299, None),
        ("12,500 KWD", 12500, 12.5, None),
        ("$1,299", 1299, 1.299, 1299),
        ("£1,000", 1000, 1, 1000),
        ("¥1,299", 1299, 1.299, 1299),
        ("Rs. 1,299", 1299, 1.299, 1299),
        ("1.299", 1.299, 1299, 1.299),
        ("12.500 KWD", 12.5, 12500, 12.5),
        ("299.000 VND", 299, 299000, None),
    ],
)
def test_a_single_mark_before_three_digits_is_what_it_is_in_the_column(text, point, comma, nothing):
    assert [number(text, decimal) for decimal in (".", ",", "", BOTH)] == [point, comma, nothing, None]
    assert are_open(pa.array([text]))
    assert decimal_sign(pa.array([text, "5", None])) == ""


@pytest.mark.parametrize(
    ("prices", "sign"),
    [
        (["12.90", "1,299"], "."),
        (["1,299,000"], "."),
        (["1,299.99"], "."),
        (["12,9"], ","),
        (["1.299.000"], ","),
        (["1 299,00"], ","),
        (["0,500"], ","),
        (["12.90", "12,90"], BOTH),
        (["1299", "CHF 12.-", "ask us", None], ""),
    ],
)
def test_the_sign_of_a_column(prices, sign):
    assert decimal_sign(pa.array(prices, pa.string())) == sign
    assert are_open(pa.array(prices, pa.string())) == ("1,299" in prices)


@given(st.integers(0, 10**9), st.integers(0, 99), st.sampled_from([",.", ".,", " ,", "'.", " ."]), st.sampled_from("$€£"))
def test_a_price_with_cents_is_read_whatever_its_country(whole, cents, marks, currency):
    text = currency + f"{whole:,}".replace(",", marks[0]) + f"{marks[1]}{cents:02}"
    assert number(text, "") == pytest.approx(whole + cents / 100, abs=1e-6)


def rows_of(tmp_path, lines: list[str], name: str = "feed.tsv", batch_rows: int = 20_000, **settings) -> list[dict]:
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = FeedConfig(uri=str(tmp_path / name), **settings)
    return [row for batch in read_feed(config, batch_rows) for row in batch.rows.to_pylist()]


def google(*prices: str) -> list[str]:
    return ["id\ttitle\timage_link\tprice", *(f"{n}\tt\thttps://x.test/{n}.jpg\t{p}" for n, p in enumerate(prices))]


def test_a_feed_in_the_english_style(tmp_path):
    rows = rows_of(tmp_path, google("1,299.99 EUR", "1,299 EUR", "12.50 EUR"))
    assert [(row["price"], row["warned"]) for row in rows] == [(1299.99, None), (1299.0, None), (12.5, None)]
    rows = rows_of(tmp_path, google("1,299 EUR", "15 EUR"))
    assert [(row["price"], row["currency"], bool(row["warned"])) for row in rows] == [(None, None, True), (15.0, "EUR", False)]
    assert [row["price"] for row in rows_of(tmp_path, google("1,299", "15"), currency="JPY")] == [1299.0, 15.0]


def test_the_sign_is_told_by_prices_that_come_later(tmp_path, monkeypatch):
    blocks = 60
    monkeypatch.setattr(feeds.delimited, "CSV_BLOCK_BYTES", 500)
    lines = google("1,299 EUR", *["15 EUR"] * blocks, "12.50 EUR")
    assert rows_of(tmp_path, lines, batch_rows=5)[0]["price"] == 1299.0
    lines[-1] = lines[-1].replace("12.50", "12,50")
    assert rows_of(tmp_path, lines, batch_rows=5)[0]["price"] == 1.299


@pytest.mark.parametrize(
    ("price", "sale", "said", "warned"),
    [
        ("20.00 USD", "15.00 USD", (15.0, 15.0, 20.0, "USD"), []),
        ("12.50 USD", "1.00 EUR", (12.5, None, None, "USD"), ["sale_price"]),
        ("12.50", "1.00 EUR", (1.0, 1.0, 12.5, "EUR"), []),
        ("20.00 USD", "0.00 USD", (20.0, None, None, "USD"), []),
        ("20.00 USD", "0", (20.0, None, None, "USD"), []),
        ("20.00 USD", "25 USD", (20.0, None, None, "USD"), []),
        ("1,299.00 USD", "1,199.00 USD", (1199.0, 1199.0, 1299.0, "USD"), []),
    ],
)
def test_a_sale_price_counts_where_it_is_one(tmp_path, price, sale, said, warned):
    lines = ["id\ttitle\timage_link\tprice\tsale_price", f"1\tt\thttps://x.test/1.jpg\t{price}\t{sale}"]
    [row] = rows_of(tmp_path, lines)
    assert tuple(row[name] for name in ("price", "sale_price", "regular_price", "currency")) == said
    assert [one["column"] for one in row["warned"] or []] == warned


@pytest.mark.parametrize(
    ("price", "compare", "said"),
    [
        ("20.00", "0.00", (20.0, None, None)),
        ("20.00", "0", (20.0, None, None)),
        ("20.00", "15.00", (20.0, None, None)),
        ("20.00", "20.00", (20.0, None, None)),
        ("20.00", "", (20.0, None, None)),
        ("20.00", "30.00", (20.0, 20.0, 30.0)),
        ("999.00", "1,299.99", (999.0, 999.0, 1299.99)),
        ("1,299.99", "1,299.00", (1299.99, None, None)),
        ("1,299", "1,199", (1299.0, None, None)),
        ("1,299", "1,499", (1299.0, 1299.0, 1499.0)),
    ],
)
def test_a_compare_at_price_of_shopify_counts_above_the_price(tmp_path, price, compare, said):
    lines = ["Handle,Title,Variant Price,Variant Compare At Price,Image Src", f'a,A,"{price}","{compare}",https://x.test/a.jpg']
    [row] = rows_of(tmp_path, lines, "feed.csv", currency="USD")
    assert tuple(row[name] for name in ("price", "sale_price", "regular_price")) == said


def test_the_cheapest_variant_of_shopify_is_told_by_its_number(tmp_path):
    lines = ["Handle,Title,Variant Price,Image Src", 'a,A,"1,299.00",https://x.test/a.jpg', 'a,,"1,100.00",', "a,,ask us,"]
    assert rows_of(tmp_path, lines, "feed.csv", currency="EUR")[0]["price"] == 1100.0
