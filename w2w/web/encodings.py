"""Decoding bytes as browsers do (encoding.spec.whatwg.org, and section 13.2.3 of the HTML standard)."""

import codecs
import re

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Labels that mean more on the web than in Python: Python's name -> the Python codec to use.
_WEB = {
    **{"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874"},
    **{"gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "johab": "cp949", "shift_jis": "cp932", "big5": "big5hkscs"},
    **{"utf-16": "utf-16-le"},
}
# Labels that Python does not know.
_LABELS = {
    **{"unicode-1-1-utf-8": "utf-8", "x-cp1250": "cp1250", "x-cp1251": "cp1251", "x-cp1252": "cp1252", "csgb2312": "gb18030"},
    **{"x-sjis": "cp932", "windows-31j": "cp932", "x-gbk": "gb18030", "gb_2312-80": "gb18030", "x-euc-jp": "euc_jp"},
    **{"windows-949": "cp949", "ks_c_5601-1989": "cp949", "x-x-big5": "big5hkscs", "cn-big5": "big5hkscs", "koi": "koi8-r"},
    **{"iso-8859-8-i": "iso8859-8", "logical": "iso8859-8", "visual": "iso8859-8", "dos-874": "cp874", "windows-874": "cp874"},
    **{"x-mac-cyrillic": "mac-cyrillic", "x-mac-roman": "mac-roman", "mac": "mac-roman", "unicode": "utf-16-le"},
}
_NOT_OF_THE_WEB = {"utf-7", "idna", "punycode", "unicode-escape", "unicode_escape", "raw-unicode-escape", "raw_unicode_escape"}
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,>/]+)", re.IGNORECASE)
_DECLARED = re.compile(
    rb"<!--|<meta[\s/]([^<>]*)", re.IGNORECASE
)  # no "<" inside, so a page of nothing but "<meta " takes linear time
_XML = re.compile(rb"\s*<\?xml\s[^<>]*?encoding\s*=\s*[\"']([^\"'<>]+)", re.IGNORECASE)


def codec_of(label: str) -> str | None:
    """The Python codec for an encoding label of the web; None if it is not a text encoding."""
    label = label.strip().lower()
    try:
        found = codecs.lookup(_LABELS.get(label, label))
        "".encode(found.name)  # bytes-to-bytes codecs do not count
    except (LookupError, ValueError, TypeError):
        return None
    return None if found.name in _NOT_OF_THE_WEB else _WEB.get(found.name, found.name)


def decoded(body: bytes, content_type: str = "") -> str:
    """The page's text, in the first encoding that fits its bytes: a byte order mark's, the header's, the page's own
    declaration, UTF-8; otherwise windows-1252.

    A stray byte among many good characters is replaced; an encoding that decodes nothing but ASCII is not trusted.
    """
    mark, name = next(((mark, name) for mark, name in _MARKS if body.startswith(mark)), (b"", None))
    plain = body[len(mark) :]
    header = _CHARSET.search(content_type)
    guess = _looks_wide(plain)
    wide = guess is not None or (name or "").startswith("utf-16")  # only these bytes can be UTF-16 or 32, whatever is declared
    labels = [name, header[1] if header else None, None if wide else _declared(plain), guess, "utf-8"]
    for label in filter(None, labels):
        codec = codec_of(label)
        if codec is None or codec.startswith(("utf-16", "utf-32")) != wide:
            continue
        text = plain.decode(codec, "replace")
        bad = text.count("\ufffd")
        if not bad or sum(not c.isascii() for c in text) >= 10 * bad:
            return text.replace("\x00", "")
    return plain.decode("cp1252", "replace").replace("\x00", "")


def _declared(body: bytes) -> str | None:
    """The encoding that the page declares: in its XML declaration or in a meta element outside comments."""
    if match := _XML.match(body):
        return match[1].decode("latin-1")
    at = 0
    while match := _DECLARED.search(body, at):
        if match[1] is None:
            end = body.find(b"-->", match.end())
            if end < 0:
                return None
            at = end
        elif found := _CHARSET.search(match[1].decode("latin-1")):
            return found[1]
        else:
            at = match.end()
    return None


def _looks_wide(body: bytes) -> str | None:
    """The byte order of UTF-16 with ASCII markup, if at least a quarter of the characters have a zero byte; or None."""
    head = body[:1000]
    little, big = head[1::2].count(0), head[0::2].count(0)
    if max(little, big) * 8 < len(head) or not head:
        return None
    return "utf-16-le" if little >= big else "utf-16-be"
