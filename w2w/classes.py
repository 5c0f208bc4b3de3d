"""The seven classes of garments, and what stands for none of them."""

from collections.abc import Mapping

from w2w.config import check_label
from w2w.errors import UsageError

BAG, BOTTOM, DRESS, HAT, OUTER, SHOES, TOP = CATEGORIES = ("bag", "bottom", "dress", "hat", "outer", "shoes", "top")
ETC = "etc"  # a product, or a thumbnail, that shows none of the seven


def check_classes(mapped: Mapping[str, str], of: str = "") -> None:
    """Raises UsageError for a category that is mapped to anything but one of the seven or ``etc``. ``of``: begins its name."""
    for theirs, ours in mapped.items():
        check_label(ours, f"{of}{theirs}")
        if ours not in (*CATEGORIES, ETC):
            classes = ", ".join((*CATEGORIES, ETC))
            raise UsageError(f"{of}{theirs}: {ours!r} is no class of ours: {classes}")
