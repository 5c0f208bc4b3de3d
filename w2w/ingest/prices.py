"""Prices, as written by machines and by people."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

_CODES = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP
    CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD
    IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR
    MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP
    SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF
    YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_CODES.split())  # ISO 4217, those in use
_DOLLARS = {
    **{"US": "USD", "U.S.": "USD", "R": "BRL", "NT": "TWD", "HK": "HKD", "C": "CAD", "CA": "CAD", "A": "AUD", "AU": "AUD"},
    **{"MX": "MXN", "MEX": "MXN", "NZ": "NZD", "S": "SGD", "SG": "SGD", "AR": "ARS", "CL": "CLP", "CO": "COP", "COL": "COP"},
    **{"RD": "DOP", "J": "JMD", "TT": "TTD", "BZ": "BZD", "FJ": "FJD", "N": "NAD", "EC": "XCD"},
}
_SYMBOLS = {
    **{
        "€": "EUR",
        "eur": "EUR",
        "₩": "KRW",
        "원": "KRW",
        "₹": "INR",
        "円": "JPY",
        "元": "CNY",
        "₫": "VND",
        "฿": "THB",
        "₱": "PHP",
    },
    **{"₽": "RUB", "руб": "RUB", "₺": "TRY", "TL": "TRY", "₪": "ILS", "₦": "NGN", "₴": "UAH", "₸": "KZT", "лв": "BGN"},  # noqa: RUF001
    **{"zł": "PLN", "Kč": "CZK", "Ft": "HUF", "lei": "RON", "₡": "CRC", "₲": "PYG", "RM": "MYR", "Rp": "IDR", "S/": "PEN"},
    **{"د.إ": "AED"},
}
_NAMES = {"euro": "EUR", "euros": "EUR", "us dollar": "USD", "us dollars": "USD", "pound sterling": "GBP", "swiss franc": "CHF"}
_NAMES |= {"yen": "JPY", "yuan": "CNY", "renminbi": "CNY", "rmb": "CNY", "zloty": "PLN", "złoty": "PLN", "forint": "HUF"}
_GUESSES = {"£": "GBP", "¥": "JPY", "Rs": "INR", "₨": "INR", "Fr": "CHF", "kr": ""}  # used by several countries
_THREE_DECIMALS = {"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}
_SIGNS = "|".join(map(re.escape, [*_SYMBOLS, *_GUESSES]))
_MARK = rf"(?<![^\W\d_])(?:[A-Za-z.]{{0,4}}\$[A-Z]{{0,3}}|[A-Z]{{3}}|{_SIGNS})(?![^\W\d_])\.?"
_MARK_BEFORE, _MARK_AFTER = re.compile(rf"({_MARK}) ?-?\Z"), re.compile(rf"[.,]?[-\u2013]{{0,2}} ?({_MARK})")
_NUMBER = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?![0-9])(?:[.,][0-9]+)?|[0-9]+(?:[.,'][0-9]+)*")
_MACHINE = re.compile(r"\+?(?=\.?[0-9])[0-9]*\.?[0-9]*(?:[eE]([+-]?[0-9]+))?\Z")
_APOSTROPHES = dict.fromkeys(map(ord, "\u2019\u02bc\u2018\u00b4`\u066c"), "'") | {ord("\u066b"): ".", ord("\u2212"): "-"}
_DAY = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}")
_MOST_CHARS, _MOST_DIGITS = 300, (15, 40)  # of a text; of a number before and after its point


@dataclass(frozen=True)
class Price:
    """``number``: digits and possibly a point; "" if there is none. ``currency``: a code, if the text leaves no doubt.

    ``guess``: for a symbol that several countries use, the code of the largest of them.
    """

    number: str = ""
    currency: str = ""
    guess: str = ""


def machine_price(text: str) -> Price:
    """A price as machines write it (schema.org/price): a decimal point and no thousands separators.

    Shops also put text for people there: anything that is not such a number is read by ``written_price``.
    """
    text = text.strip()
    match = _MACHINE.match(text)
    if not match:
        return written_price(text)
    if len(match[1] or "") > 4:  # 1e999999999 written out would fill the memory
        return Price()
    plain = f"{Decimal(text):f}" if match[1] or text.startswith((".", "+")) else text.rstrip(".")
    return _priced(plain)


def written_price(text: str) -> Price:
    """A price as people write it: ``1.299,00 €`` is 1299.00 EUR, and so is ``EUR 1'299.00``; of a range, the lower end.

    The last of two separators is the decimal one; so is a single one, unless exactly three digits follow (12.500 is 12500; not
    0.500, nor if the currency has three decimals). Numbers next to a currency take precedence; percentages are ignored.
    """
    text = unicodedata.normalize("NFKC", text[:_MOST_CHARS].translate(_APOSTROPHES))
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    text = re.sub(r"(?<=[0-9]) ([.,]) ?(?=[0-9]{2}(?![0-9]))", r"\1", re.sub(r"\s+", " ", text))
    numbers = [m for m in _NUMBER.finditer(text) if not re.match(r" ?%", text[m.end() :])]
    marks = [_marks(text, m) for m in numbers]
    at = next((i for i, found in enumerate(marks) if found), 0 if numbers else None)
    if at is None:
        return Price()
    currency, guess = _currency(marks[at])
    while at and re.fullmatch(r"[^\w.,]{0,3} ?[-\u2013\u2014~][^\w.,]{0,3}", text[numbers[at - 1].end() : numbers[at].start()]):
        at -= 1
    chosen = numbers[at]
    if re.search(r"(?<![0-9])-\Z|\A-[^\w\s]\Z", text[: chosen.start()]):
        return Price()
    number = _plain(chosen[0], currency)
    cents = re.match(r" ([0-9]{2})(?![0-9.,%])", text[chosen.end() :])  # $49 90: the cents are raised
    if cents and chosen[0].isdigit() and _MARK_BEFORE.search(text[: chosen.start()]):
        number += "." + cents[1]
    return _priced(number, currency, guess)


def is_within(interval: str, now: datetime) -> bool | None:
    """Whether an interval (ISO 8601: start/end, of which one may be missing) has this time in it; None if it cannot be read.
    Times without an offset are UTC; an end without a time is the end of that day."""
    start, slash, end = (part.strip() for part in interval.partition("/"))
    moments = [_moment(part) if part else None for part in (start, end)]
    if not slash or not (start or end) or any(part and moment is None for part, moment in zip((start, end), moments)):
        return None
    first, last = moments
    until = now - timedelta(days=1) if _DAY.fullmatch(end) else now  # not a day after the last: there is none after 9999-12-31
    return (first is None or first <= now) and (last is None or until < last)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.strptime(text, "%Y-%m-%d") if _DAY.fullmatch(text) else datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def currency_code(text: str) -> str:
    """The ISO 4217 code of a currency on its own: ``EUR``, ``eur``, ``Euro`` or ``€``; "" if it is not one."""
    text = text.strip()
    named = _NAMES.get(text.lower(), text.upper())
    if named in CURRENCIES:
        return named
    price = written_price(f"1 {text}")
    return price.currency or price.guess


def _priced(number: str, currency: str = "", guess: str = "") -> Price:
    whole, _, decimals = number.partition(".")
    fits = len(whole) <= _MOST_DIGITS[0] and len(decimals) <= _MOST_DIGITS[1]
    return Price(number, currency, guess) if fits and number else Price()


def _marks(text: str, number: re.Match) -> list[str]:
    """Currency marks on both sides of a number, at most two on each."""
    found, before, after = [], text[: number.start()], text[number.end() :]
    for _ in range(2):
        if match := _MARK_BEFORE.search(before[-12:]):
            found.append(match[1])
            before = before[-12:][: match.start()]
        if match := _MARK_AFTER.match(after):
            found.append(match[1])
            after = after[match.end() :]
    return [mark for mark in found if mark in CURRENCIES or not re.fullmatch(r"[A-Z]{3}", mark)]


def _currency(marks: list[str]) -> tuple[str, str]:
    """(the code that the marks determine, the code that they may mean), each "" if there is none."""
    guess = ""
    for mark in marks:
        before, dollar, after = mark.rstrip(".").partition("$")
        if dollar:
            named = next((c for c in (before.upper(), after) if c in CURRENCIES), _DOLLARS.get(before.upper() or after, ""))
            guess = guess or ("USD" if not before + after else "")
        else:
            named = before if before in CURRENCIES else _SYMBOLS.get(before, "")
            guess = guess or _GUESSES.get(before, "")
        if named:
            return named, ""
    return "", guess


def _plain(written: str, currency: str) -> str:
    """Digits and possibly a point; "" for separators in an order that no country uses."""
    number = re.sub(r"[ ']", "", written)
    separators = re.findall(r"[.,]", number)
    if not separators:
        return number
    head, sign, tail = number.rpartition(separators[-1])
    once = separators.count(sign) == 1
    if len(set(separators)) == 2:
        if not once:
            return ""
        is_decimal = True
    elif once and len(tail) == 3:
        three = currency in _THREE_DECIMALS and (sign == "." or currency == "TND")
        is_decimal = three or number != written or head.startswith("0") or len(head) > 3
    else:
        is_decimal = len(tail) != 3
    return re.sub(r"[.,]", "", head) + ("." if is_decimal else "") + tail
