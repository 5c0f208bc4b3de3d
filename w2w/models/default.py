"""The default encoder in a store that an earlier w2w filled, whose default was another."""

import itertools
from dataclasses import replace

from w2w import schema
from w2w.errors import UsageError
from w2w.models.config import DEFAULT, LITE0, STORE_DTYPES, EncoderConfig
from w2w.models.device import DTYPES
from w2w.models.encoder import model_version
from w2w.table import delta
from w2w.table.published import MadeBy

EARLIER = (LITE0,)  # defaults of earlier versions
_COLOURS = (0.0, 0.7)  # weights of the part for colours that are looked for in a store, beside the options' own


def standing_default(store: str, config: EncoderConfig, index: MadeBy | None = None) -> EncoderConfig:
    """What the options say; where they name no encoder and no bridge, the default of an earlier version if the published index
    is of it or, where that does not tell, if the store has more vectors of it than of today's."""
    if config.is_named or config.bridge:
        return config
    if index and index.encoder in EARLIER:
        return replace(config, name=index.encoder)
    now = replace(config, colour=0.0)  # today's default has colours by itself
    if index and index.model_version == model_version(now):
        return config
    opened = delta.open_table(store, schema.EMBEDDINGS)
    if opened is None:
        return config
    rows = {name: _rows(opened, replace(now, name=name), config.colour) for name in (*EARLIER, DEFAULT)}
    most = max(EARLIER, key=rows.__getitem__)
    return replace(config, name=most) if rows[most] > rows[DEFAULT] else config


def check_default(store: str, config: EncoderConfig, index: MadeBy | None = None) -> None:
    """Raises UsageError where the options name no encoder and the store is one of an earlier default, so that nothing is
    embedded anew, and no index changes its model, unasked."""
    before = standing_default(store, config, index).name
    if before == config.name:
        return
    opened = delta.open_table(store, schema.EMBEDDINGS)
    old, new = (_rows(opened, replace(config, name=name, colour=0.0), config.colour) for name in (before, DEFAULT))
    whose = "the published index is" if index and index.encoder == before else "most of the store's vectors are"
    raise UsageError(
        f"encoder.name is not set, and {whose} of {before}, the default of an earlier w2w ({old:,} vectors; {new:,} of "
        f"{DEFAULT}, the default now): set encoder.name={before} to go on as before, or encoder.name={DEFAULT} to change to "
        "it; 'w2w bridge' spreads that over several nights"
    )


def _rows(opened: delta.DeltaTable | None, config: EncoderConfig, colour: float) -> int:
    """Of the encoder, in whatever precision and with or without the part for colours."""
    colours = {0.0} if config.name == DEFAULT else {*_COLOURS, colour}
    versions = {
        model_version(replace(config, colour=weight, dtype=dtype, store_dtype=stored))
        for weight, dtype, stored in itertools.product(colours, DTYPES, STORE_DTYPES)
    }
    return sum(part.rows for part in delta.parts(opened) if dict(part.partition).get(schema.MODEL_VERSION) in versions)
