"""One self-contained HTML page: styles, scripts and pictures inside, nothing loaded from anywhere, everything escaped."""

import base64
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from w2w import storage
from w2w.errors import Reject
from w2w.images.decode import decode
from w2w.shown import on_page, without_secrets

_THUMBNAIL_PX = 240
_BAR_PX = 120
_MOST_BYTES = 2_900_000  # of a page
_LEAST_SIDE_PX = 48
_SHORT = 12  # characters of an id
_LEAST, _SMALL = 1e-9, 0.0005  # three decimals would make nothing of what lies between
_DIGEST = re.compile(r"\b[0-9a-f]{32,}\b")
_TERMS = {  # what figures mean, by how their names begin
    "recall": "Recall@k: the share of queries with a right answer among the first k products, from 0 to 1",
    "mrr": "MRR: the mean of 1 / rank of the first right answer, 1 where all stand first",
    "ndcg": "nDCG@k: how near the top the right answers among the first k stand, from 0 to 1",
    "accuracy": "Accuracy: the share of right predictions",
    "sure": "Sure: probable enough to become a tag; a picture of which the tagger is not sure gets none",
    "fitb": "FITB: the share of outfits whose missing piece is chosen from the answers on offer",
}
_URI = r"data:image/jpeg;base64,[A-Za-z0-9+/=]+"
_PICTURE = re.compile(f'src="({_URI})"')
_PAGE, _LATEST = "index.html", "latest.html"
_REPORTS = re.compile(rf"(.*/reports/[^/]+)/[^/]+/{re.escape(_PAGE)}")


def _shown(value: object) -> object:
    """Text fit for a page, except what a filter ``e`` has escaped: names that a script hands on, whole. Scanning pictures for
    secrets would take longer than everything else."""
    return on_page(value) if type(value) is str and not re.fullmatch(_URI, value) else value


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    finalize=_shown,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(uri: str, template: str, **values: object) -> None:
    """Renders a template, such as "garments/page.html.j2" in w2w/, and writes it atomically; if the place came from
    ``page_of``, also as the job's latest page, one folder above: an address of another job's page begins with ../../"""
    text = _once_each(_environment.get_template(template).render(**values)).encode()
    storage.write_bytes(uri, text)
    if kept := _REPORTS.fullmatch(uri):
        storage.write_bytes(storage.join(kept[1], _LATEST), text.replace(b'href="../../', b'href="../'))


def page_of(store: str, job: str, run_id: str) -> str:
    """Location of a run's page: <store>/reports/<job>/<run>/index.html."""
    return storage.join(store, "reports", job, run_id, _PAGE)


def folder_of(out: str | None, store: str, job: str, run_id: str) -> str:
    """The folder of a run's page and the files beside it: ``out``, if given."""
    return storage.absolute(out) if out else page_of(store, job, run_id).rpartition("/")[0]


def _once_each(text: str) -> str:
    """The page with every picture stored at its first use and referenced afterwards; all are shrunk if the page would be too
    large."""
    uses = Counter(_PICTURE.findall(text))
    small = _smaller(uses, _MOST_BYTES - len(text.encode()) + sum(len(uri) * n for uri, n in uses.items()))
    number: dict[str, int] = {}

    def once(found: re.Match) -> str:
        uri = found[1]
        if uses[uri] == 1:
            return f'src="{small[uri]}"'
        if uri in number:
            return f'data-again="{number[uri]}"'
        number[uri] = len(number)
        return f'src="{small[uri]}" data-picture="{number[uri]}"'

    return _PICTURE.sub(once, text)


def _smaller(uris: Counter[str], room: int) -> dict[str, str]:
    """The pictures unchanged or, if together they are longer than ``room``, all scaled down until they fit or are tiny."""
    small = {uri: uri for uri in uris}
    scale = 1.0
    while (length := sum(map(len, small.values()))) > max(room, 0):
        scale *= min(0.9, (max(room, 1) / length) ** 0.5)
        pictures = {uri: Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris}
        sides = {uri: max(picture.size) * scale for uri, picture in pictures.items()}
        if max(sides.values()) < _LEAST_SIDE_PX:
            break
        for uri, picture in pictures.items():
            picture.thumbnail((max(_LEAST_SIDE_PX, sides[uri]),) * 2)
            small[uri] = data_uri(picture)
    return small


def thumbnail(data: bytes | None, side_px: int = _THUMBNAIL_PX) -> str | None:
    """A data URI of ``small``. None if unreadable."""
    picture = None if data is None else small(data, side_px)
    return data_uri(picture) if picture else None


def small(data: bytes, side_px: int) -> Image.Image | None:
    """The picture at most ``side_px`` per side, to be re-encoded so that no foreign byte gets in. None if unreadable."""
    try:
        picture = Image.fromarray(decode(data, min_side_px_wanted=side_px))
    except Reject:
        return None
    picture.thumbnail((side_px, side_px))
    return picture


def tiled(pictures: Sequence[Image.Image], side_px: int) -> Image.Image:
    """Pictures on one white square, in rows of as many as there are rows."""
    across = math.ceil(math.sqrt(len(pictures)))
    side, whole = side_px // across, Image.new("RGB", (side_px, side_px), "white")
    for n, picture in enumerate(pictures):
        part = picture.copy()
        part.thumbnail((side, side))
        row, column = divmod(n, across)
        whole.paste(part, (column * side + (side - part.width) // 2, row * side + (side - part.height) // 2))
    return whole


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG inside a page."""
    return jpeg_uri(jpeg(picture))


def jpeg(picture: Image.Image) -> bytes:
    """With the quality used on pages."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80, optimize=True)
    return out.getvalue()


def jpeg_uri(data: bytes) -> str:
    """A JPEG encoded by us, as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _number(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float):
        if _LEAST < abs(value) < _SMALL:  # a learning rate
            return f"{value:.2g}"
        return "" if np.isnan(value) else f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return str(value)


def duration(seconds: float) -> str:
    """ "12.3 s", "2 min 4 s", "1 h 5 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes} min {s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def explained(measures: Iterable[str]) -> str:
    """What these figures are, in a sentence; empty where the names are not known."""
    words = {word for measure in measures for word in re.split(r"[^a-z]+", measure.lower())}
    said = [text for name, text in _TERMS.items() if name in words]
    return f"{'; '.join(said)}." if said else ""


def _short(name: str) -> str:
    """An id shortened for people; the whole one belongs in a ``title``."""
    return name if len(name) <= _SHORT + 4 else f"{name[:_SHORT]}…"


def _is_number(value: object) -> bool:
    """Whether it can be drawn: a resample without queries has an interval of NaN."""
    return isinstance(value, int | float) and math.isfinite(value)


def _shade(share: float) -> str:
    """Background of a heat map's cell."""
    return f"rgba(86, 140, 200, {0.08 + 0.52 * share:.2f})" if share > 0 else "transparent"


_environment.filters |= {
    "without_secrets": without_secrets,
    "number": _number,
    "shade": _shade,
    "is_number": _is_number,
    "short": _short,
    "shortened": lambda text: _DIGEST.sub(lambda found: _short(found[0]), text),
    "explained": explained,
}
_environment.globals["bar_px"] = _BAR_PX
