"""The default encoder in a store that an earlier w2w filled, whose default was another."""

from dataclasses import replace

from w2w import schema
from w2w.errors import UsageError
from w2w.models.config import DEFAULT, LITE0, EncoderConfig
from w2w.models.encoder import model_version
from w2w.table import delta

EARLIER = (LITE0,)  # defaults of earlier versions


def standing_default(store: str, config: EncoderConfig) -> EncoderConfig:
    """What the options say; where they name no encoder and no bridge, the default of an earlier version if the store has more
    vectors of it than of today's."""
    opened = None if config.is_named or config.bridge else delta.open_table(store, schema.EMBEDDINGS)
    if opened is None:
        return config
    most = 0 if config.colour else _rows(opened, config)  # today's default has colours by itself
    for name in EARLIER:
        before = replace(config, name=name)
        if (rows := _rows(opened, before)) > most:
            config, most = before, rows
    return config


def check_default(store: str, config: EncoderConfig) -> None:
    """Raises UsageError where the options name no encoder and most of the store's vectors are of an earlier default, so that
    nothing is embedded anew unasked."""
    before = standing_default(store, config)
    if before.name == config.name:
        return
    opened = delta.need_table(store, schema.EMBEDDINGS, "embed")
    now = 0 if config.colour else _rows(opened, config)
    raise UsageError(
        f"encoder.name is not set, and this store has {_rows(opened, before):,} vectors of {before.name}, the default of an "
        f"earlier w2w, and {now:,} of {DEFAULT}, the default now: set encoder.name={before.name} to go on as before, or "
        f"encoder.name={DEFAULT} to embed all pictures anew; 'w2w bridge' spreads that over several nights"
    )


def _rows(opened: delta.DeltaTable, config: EncoderConfig) -> int:
    return delta.count_rows(opened, **{schema.MODEL_VERSION: model_version(config)})
