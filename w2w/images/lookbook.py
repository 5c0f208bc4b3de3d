"""File names of LookBook (Yoo et al. 2016): PID000001_CLEAN1_IID000000.jpg is picture 0, of product 1 alone (CLEAN1) or worn
(CLEAN0)."""

import re
from pathlib import Path

from w2w.errors import UsageError

_NAME = re.compile(r"^PID(\d{6})_CLEAN([01])_IID(\d{6})\.jpg$")


def file_name(product: int, image: int, *, clean: bool) -> str:
    """Numbers of product and picture from 0 to 999,999."""
    assert max(product, image) < 10**6, f"product {product}, picture {image}: at most six digits each"
    return f"PID{product:06d}_CLEAN{int(clean)}_IID{image:06d}.jpg"


def read_name(path: Path) -> tuple[str, bool]:
    """The product's six digits, and whether the picture shows it alone. Raises UsageError for any other name."""
    match = _NAME.match(path.name)
    if not match:
        raise UsageError(f"{path}: is not like {file_name(1, 0, clean=True)}")
    return match[1], match[2] == "1"
