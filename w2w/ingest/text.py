"""A feed's text, of any encoding and compression, as UTF-8 in lines."""

import codecs
import io
import re
from collections.abc import Callable

import pyarrow as pa

from w2w import storage
from w2w.errors import BadInput, UsageError

MAX_LINE_BYTES = 16 * 1024 * 1024  # of a JSON line
# Undecodable bytes become U+FDD0, a code point that Unicode forbids in text (section 23.7), which marks the row for the reader;
# U+FFFD would condemn rows whose author stored that character, as real feeds do.
MARK = "\ufdd0"
codecs.register_error("w2w-mark", lambda e: (MARK, e.end))  # type: ignore[attr-defined]  # those of decoding have an end


def open_text(uri: str, encoding: str, seen: Callable[[str], None] = lambda text: None) -> pa.NativeFile:
    """The file as a stream of UTF-8, whatever its encoding and compression (by suffix: .gz, .zst, .bz2). If its first line ends
    with a lone carriage return (Excel's "CSV (Macintosh)"), each of them becomes a line feed. ``seen`` gets each piece.

    Raises UsageError if there is no such file or encoding.
    """
    try:
        "a".encode(encoding)  # LookupError also for codecs that do not encode text, such as rot13 and hex
        decoder = codecs.getincrementaldecoder(encoding)("w2w-mark")
    except (LookupError, ValueError):
        raise UsageError(f"feed.encoding={encoding}: no such encoding; utf-8, cp1252, latin-1 and utf-16 are common") from None
    system, path = storage.filesystem(uri)
    try:
        stream = system.open_input_stream(path)
    except FileNotFoundError:
        raise UsageError(f"feed.uri={uri}: no such file") from None
    except PermissionError:
        raise UsageError(f"feed.uri={uri}: no permission to read it") from None

    line_ends = _LineEnds()

    def transcode(chunk: pa.Buffer) -> bytes:
        try:
            text = line_ends(decoder.decode(bytes(chunk), final=len(chunk) == 0))
            seen(text)
            return text.encode("utf-8", "replace")
        except UnicodeError as e:  # no row is at fault: e.g. the codec requires a byte order mark
            raise BadInput(f"feed.uri={uri}: not {encoding}: {e}") from None

    return pa.TransformInputStream(stream, transcode)


class _LineEnds:
    """Text, piece by piece, with line feeds for carriage returns if its first line ends with a lone one."""

    def __init__(self):
        self._alone: bool | None = None
        self._held = ""  # a carriage return that may be half of a line end

    def __call__(self, text: str) -> str:
        if self._alone is None:
            text, self._held = self._held + text, ""
            end = re.search(r"\r(.?)|\n", text, re.DOTALL)
            if end and end[1] == "":
                text, self._held = text[:-1], "\r"
            elif end:
                self._alone = end[1] is not None and end[1] != "\n"
        return text.replace("\r", "\n") if self._alone else text


def buffered(stream: pa.NativeFile) -> io.BufferedReader:
    return io.BufferedReader(stream, 256 * 1024)
