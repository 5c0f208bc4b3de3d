"""One self-contained HTML page: styles, scripts and pictures inside, nothing loaded from anywhere, everything escaped."""

import base64
import io
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from w2w import storage
from w2w.errors import Reject
from w2w.images.decode import decode
from w2w.shown import without_secrets

_THUMBNAIL_PX = 150
_BAR_PX = 120

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    finalize=lambda value: without_secrets(value) if type(value) is str else value,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(uri: str, template: str, **values: object) -> None:
    """Renders a template, as "garments/page.html.j2" in w2w/, and writes it in one piece."""
    text = _environment.get_template(template).render(**values)
    storage.write_bytes(uri, text.encode())


def thumbnail(data: bytes | None, side_px: int = _THUMBNAIL_PX) -> str | None:
    """A data URI of at most ``side_px`` a side, encoded anew: no foreign byte gets in. None for what cannot be read."""
    if data is None:
        return None
    try:
        pixels = decode(data, min_side_px_wanted=side_px)
    except Reject:
        return None
    picture = Image.fromarray(pixels)
    picture.thumbnail((side_px, side_px))
    return data_uri(picture)


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG inside a page."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _number(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return str(value)


def _shade(share: float) -> str:
    """Background of a heat map's cell."""
    return f"rgba(46, 125, 90, {0.08 + 0.72 * share:.2f})" if share > 0 else "transparent"


_environment.filters |= {"number": _number, "shade": _shade}
_environment.globals["bar_px"] = _BAR_PX
