"""What a page says of products and posts, without those that were erased."""

import json
from collections.abc import Callable

from w2w import schema

_KEYS = {"product": schema.PRODUCT_ID, "post": schema.POST_ID}
_HELD = {"product_ids": schema.PRODUCT_ID, schema.POST_ID: schema.POST_ID, schema.PRODUCT_ID: schema.PRODUCT_ID}
_PLACES = ("url", "image", "images", "product_urls")


def record_without(text: str, gone: Callable[[str, str], bool]) -> str | None:
    """A record's JSON without what is ``gone`` (column of ``erased.KINDS``, value): None if the record itself is. The same text
    if nothing is."""
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    if not isinstance(fields, dict):
        return text
    columns = _HELD | dict.fromkeys(_PLACES, schema.URL)
    kept = {
        name: [one for one in some if not (isinstance(one, str) and gone(columns[name], one))] if name in columns else some
        for name, some in fields.items()
        if isinstance(some, list) or name not in columns
    }
    if kept == fields:
        return text
    own = _KEYS.get(str(fields.get("record")), schema.URL)
    whole = all(kept.get(name) for name in (own, "image") if name in fields)
    return json.dumps(kept, ensure_ascii=False, sort_keys=True) if whole else None
