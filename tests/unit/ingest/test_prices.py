"""Prices of machines, whose point is decimal, and of people, who have a country."""

import pytest

from w2w.ingest.prices import currency_code, machine_price, written_price


@pytest.mark.parametrize(
    ("text", "number", "currency"),
    [
        ("1.299,00 €", "1299.00", "EUR"),
        ("€ 1.299", "1299", "EUR"),
        ("1,299", "1299", ""),
        ("12,50 EUR", "12.50", "EUR"),
        ("KRW 39,000", "39000", "KRW"),
        ("1'299.00 CHF", "1299.00", "CHF"),
        ("1\u2019299.00 CHF", "1299.00", "CHF"),
        ("CHF 12.\u2013", "12", "CHF"),
        ("1 299,00 zł", "1299.00", "PLN"),
        ("1\u202f299,00\u00a0€", "1299.00", "EUR"),
        ("1\u2009299 kr", "1299", ""),
        ("R$ 1.299,90", "1299.90", "BRL"),
        ("NT$1,290", "1290", "TWD"),
        ("HK$1,200", "1200", "HKD"),
        ("C$ 12.50", "12.50", "CAD"),
        ("A$12", "12", "AUD"),
        ("US$ 12", "12", "USD"),
        ("MX$ 999.00", "999.00", "MXN"),
        ("$12.50 CAD", "12.50", "CAD"),
        ("CAD $12.50", "12.50", "CAD"),
        ("₹1,29,999.00", "129999.00", "INR"),
        ("\uffe5\uff11\uff0c\uff12\uff10\uff10", "1200", ""),
        ("\u0661\u066c\u0662\u0669\u0669\u066b\u0660\u0660 AED", "1299.00", "AED"),
        ("12.500 KWD", "12.500", "KWD"),
        ("KWD 1,250.500", "1250.500", "KWD"),
        ("0.125", "0.125", ""),
        ("1299.000", "1299.000", ""),
        ("1.234.567,89", "1234567.89", ""),
        ("12,00 € \u2013 25,00 €", "12.00", "EUR"),
        ("12-25 €", "12", "EUR"),
        ("2 for €10", "10", "EUR"),
        ("-20% 79.90 €", "79.90", "EUR"),
        ("129,- €", "129", "EUR"),
        ("49 , 90 €", "49.90", "EUR"),
        ("RRP £12.00", "12.00", ""),
        ("\u2013 12,50 €", "12.50", "EUR"),
        ("-12.50 €", "", ""),
        ("EUR -5", "", ""),
        ("1.2,3.4,5", "", ""),
        ("9" * 30, "", ""),
        ("sold out", "", ""),
        ("", "", ""),
    ],
)
def test_written_price(text, number, currency):
    price = written_price(text)
    assert (price.number, price.currency) == (number, currency)


@pytest.mark.parametrize(
    ("text", "guess"), [("$1,299.90", "USD"), ("£ 5", "GBP"), ("¥1,200", "JPY"), ("$U 1.200", ""), ("5", "")]
)
def test_a_symbol_of_several_countries_is_a_guess(text, guess):
    assert (written_price(text).currency, written_price(text).guess) == ("", guess)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12.500", "12.500"),
        ("1299", "1299"),
        ("1.2995e3", "1299.5"),
        (" 5. ", "5"),
        (".5", "0.5"),
        ("+5", "5"),
        ("0", "0"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1,299.00", "1299.00"),
        ("49,90 €", "49.90"),
        ("-5", ""),
        ("NaN", ""),
        ("Infinity", ""),
        ("1e400", ""),
        ("1e999999999", ""),
        ("", ""),
    ],
)
def test_machine_price(text, number):
    assert machine_price(text).number == number


@pytest.mark.parametrize(
    ("text", "code"), [("EUR", "EUR"), ("eur ", "EUR"), ("€", "EUR"), ("$", "USD"), ("Taler", ""), ("", "")]
)
def test_currency_code(text, code):
    assert currency_code(text) == code
