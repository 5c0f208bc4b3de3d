"""The prices of a feed's column as numbers: which mark is the decimal one, of a price and of the column."""

import pyarrow as pa
import pyarrow.compute as pc

from w2w.ingest.prices import currency_code
from w2w.ingest.raw import trimmed

BOTH = ".,"  # the style of a column that has prices of either
LIKE = dict.fromkeys(["", ".", BOTH], "1299.90 or 1299.90 EUR") | {",": "1299,90 or 1.299,90 EUR"}
_TOO_MUCH = 1e15
_MARK, _BLANK = r"[A-Za-z]{3}|[A-Z]{0,3}\p{Sc}|zł|Kč|kr\.?|Ft|lei|TL|Rs\.?|S/\.?", r" \s\x{a0}\x{202f}"
_GAP, _APOSTROPHES = rf"[{_BLANK}]*", r"'\x{2019}"
# computed numbers in JSON and Parquet have 17 digits (23.788099999999996) or an exponent; 12.- has no cents
_PRICE = rf"^(?P<before>{_MARK})?{_GAP}(?P<number>[0-9][0-9.,{_APOSTROPHES}{_BLANK}]*?(?:[eE][+-]?[0-9]{{1,3}})?)"
_PRICE += rf"(?:[.,][-\x{{2013}}\x{{2014}}]{{1,2}})?{_GAP}(?P<after>{_MARK})?$"
# thousands set apart by blanks or apostrophes: what is behind a point or comma are decimals
_APART = rf"^[0-9]{{1,3}}(?:[{_APOSTROPHES}{_BLANK}][0-9]{{3}})+"
_THOUSANDS = {
    ",": r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3})",  # 1,299,000, and 12,99,000 as in India
    ".": r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+",
}
_OPEN = {sign: rf"^[1-9][0-9]{{0,2}}[{sign}][0-9]{{3}}$" for sign in ",."}  # 1,299: it may be 1299 or 1.299
_DECIMAL = {sign: rf"^[0-9]{{1,15}}[{sign}][0-9]{{1,40}}$" for sign in ",."}
_BARE = r"^[0-9]{1,15}(?:[eE][+-]?[0-9]{1,3}|\.[0-9]{1,40}[eE][+-]?[0-9]{1,3})?$"
# currencies without cents: three digits behind a mark are no decimals, but a machine may write so many
_WHOLE = pa.array(
    [
        "JPY",
        "KRW",
        "VND",
        "CLP",
        "ISK",
        "IDR",
        "HUF",
        "PYG",
        "UGX",
        "XAF",
        "XOF",
        "XPF",
        "RWF",
        "KMF",
        "GNF",
        "DJF",
        "BIF",
        "VUV",
    ]
)
# those of countries that write 1,299.00, with two decimals
_COMMA_APART = """
    USD GBP AUD NZD CAD HKD SGD TWD CNY INR PKR LKR BDT NPR MYR PHP THB ILS MXN NGN KES GHS AED SAR QAR
"""
_APART_IN = pa.concat_arrays([_WHOLE, pa.array(_COMMA_APART.split())])


def marks(prices: pa.Array) -> pa.Array:
    """The currency beside each price, as it is written; null without one."""
    parts = pc.extract_regex(prices, _PRICE)
    return pc.coalesce(*(trimmed(pc.struct_field(parts, name)) for name in ("after", "before")))


def codes(said: pa.Array) -> pa.Array:
    """The ISO code of each currency; null for what is none."""
    once = said.dictionary_encode()
    return pa.array([currency_code(text) or None for text in once.dictionary.to_pylist()], pa.string()).take(once.indices)


def decimal_sign(prices: pa.Array) -> str:
    """The decimal sign that these texts show: "." or ",", BOTH if some show one and some the other, "" if none shows any. Those
    with a single mark before exactly three digits show none."""
    _, shown, _ = _read(prices)
    return "".join(sign for sign in BOTH if pc.any(pc.equal(shown, sign)).as_py())


def are_open(prices: pa.Array) -> bool:
    """Whether some of these texts are read by the decimal sign of the others."""
    return bool(pc.any(pc.equal(_read(prices)[1], BOTH)).as_py())


def numbers(prices: pa.Array, decimal: str, currency: pa.Array | None = None) -> pa.Array:
    """The number of each price, null if it cannot be read. ``decimal``: of the column (``decimal_sign``); ``currency``: ISO
    codes, those beside the prices by default.

    A price with both marks tells by itself which is the decimal one, the last; a mark that is repeated sets thousands apart. A
    single mark before exactly three digits is what it is in the column. Where that shows nothing, a point is a decimal point,
    as machines write it, but not of a currency without cents (299.000 VND: null), and a comma sets thousands apart if the
    currency has no cents or its countries write so (¥1,299, £1,000); 1,299 EUR is null.
    """
    plain, _, body = _read(prices)
    commas, points = (_matches(body, _OPEN[sign]) for sign in ",.")
    bare, pointed = pc.replace_substring_regex(body, "[.,]", ""), pc.replace_substring(body, ",", ".")
    if decimal == ",":
        plain = pc.if_else(points, bare, pc.if_else(commas, pointed, plain))
    elif decimal:
        plain = pc.if_else(_matches(body, _DECIMAL[","]), None, plain)  # among points a slip, or another feed's
        if decimal != BOTH:
            plain = pc.if_else(commas, bare, pc.if_else(points, body, plain))
    else:
        currency = codes(marks(prices)) if currency is None else currency
        is_whole, is_apart = (pc.is_in(currency, value_set=some) for some in (_WHOLE, _APART_IN))
        plain = pc.if_else(pc.and_(commas, is_apart), bare, plain)
        plain = pc.if_else(pc.and_not(points, is_whole), body, plain)
    number = plain.cast(pa.float64())
    return pc.if_else(pc.less(number, _TOO_MUCH), number, None)  # 1e400 is infinite


def _read(prices: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Of each price its digits with a point, null where it needs the column's sign, the sign that it shows (BOTH where it needs
    that of the column, null where it has none), and what is written of it."""
    body = pc.struct_field(pc.extract_regex(prices, _PRICE), "number")
    is_apart = _matches(body, _APART + r"(?:[.,][0-9]{1,40})?$")
    ends = {sign: pc.and_(is_apart, pc.match_substring(body, sign)) for sign in ",."}
    tidy = pc.replace_substring(pc.replace_substring_regex(body, rf"[{_APOSTROPHES}{_BLANK}]", ""), ",", ".")
    body = pc.if_else(is_apart, tidy, body)
    is_open = pc.and_not(pc.or_(*(_matches(body, one) for one in _OPEN.values())), is_apart)
    many = {sign: _matches(body, rf"^{_THOUSANDS[sign]}$") for sign in ",."}
    mixed = {sign: _matches(body, rf"^{_THOUSANDS[other]}[{sign}][0-9]{{1,40}}$") for sign, other in (",.", ".,")}
    one = {sign: _matches(body, _DECIMAL[sign]) for sign in ",."}
    bare, pointed = pc.replace_substring_regex(body, "[.,]", ""), pc.replace_substring(body, ",", ".")
    cases = {
        "open": (is_open, pa.scalar(None, pa.string()), BOTH),
        "apart,": (ends[","], body, ","),
        "apart.": (ends["."], body, "."),
        "many,": (many[","], bare, "."),
        "many.": (many["."], bare, ","),
        "mixed,": (mixed[","], pc.replace_substring(pc.replace_substring(body, ".", ""), ",", "."), ","),
        "mixed.": (mixed["."], pc.replace_substring(body, ",", ""), "."),
        "one,": (one[","], pointed, ","),
        "one.": (one["."], body, "."),
        "bare": (_matches(body, _BARE), body, None),
    }
    chosen = pc.make_struct(*(when for when, _, _ in cases.values()), field_names=list(cases))
    plain = pc.case_when(chosen, *(text for _, text, _ in cases.values()))
    shown = pc.case_when(chosen, *(pa.scalar(sign, pa.string()) for _, _, sign in cases.values()))
    return plain, shown, body


def _matches(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False)
