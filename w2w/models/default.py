"""The default encoder in a store that an earlier w2w filled, whose default was another."""

from dataclasses import replace

from w2w import schema
from w2w.errors import UsageError
from w2w.models.config import DEFAULT, LITE0, EncoderConfig
from w2w.models.encoder import model_version
from w2w.table import delta

EARLIER = (LITE0,)  # defaults of earlier versions


def check_default(store: str, config: EncoderConfig) -> None:
    """Raises UsageError where the options name no encoder and most of the store's vectors are of an earlier default, so that
    nothing is embedded anew unasked."""
    opened = None if config.is_named else delta.open_table(store, schema.EMBEDDINGS)
    if opened is None:
        return
    now = 0 if config.colour else _rows(opened, replace(config, bridge=None))  # today's default has colours by itself
    for name in EARLIER:
        if (before := _rows(opened, replace(config, name=name, bridge=None))) > now:
            raise UsageError(
                f"encoder.name is not set, and this store has {before:,} vectors of {name}, the default of an earlier w2w, and "
                f"{now:,} of {DEFAULT}, the default now: set encoder.name={name} to go on as before, or "
                f"encoder.name={DEFAULT} to embed all pictures anew; 'w2w bridge --encoder.name={DEFAULT} "
                f"--old.name={name}' spreads that over several nights"
            )


def _rows(opened: delta.DeltaTable, config: EncoderConfig) -> int:
    return delta.count_rows(opened, **{schema.MODEL_VERSION: model_version(config)})
