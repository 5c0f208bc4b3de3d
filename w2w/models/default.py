"""The default encoder in a store that an earlier w2w filled, whose default was another."""

import itertools
from dataclasses import replace

from w2w import schema
from w2w.errors import UsageError
from w2w.models.config import DEFAULT, LITE0, STORE_DTYPES, EncoderConfig
from w2w.models.device import DTYPES
from w2w.models.encoder import model_version
from w2w.models.looks import look_version
from w2w.table import delta
from w2w.table.published import LOOKS, NAME, MadeBy, catalog_made_by, made_by

EARLIER = (LITE0,)  # defaults of earlier versions
_COLOURS = (0.0, 0.7)  # weights of the part for colours that are looked for in a store, beside the options' own


def standing_default(store: str, config: EncoderConfig, index: MadeBy | None = None, looks: bool = False) -> EncoderConfig:
    """What the options say; where they name no encoder and no bridge, the default of an earlier version if the published index
    is of it or, where that does not tell, if the store has more vectors of it than of today's. ``looks``: of looks alone."""
    if config.is_named or config.bridge:
        return config
    if index and index.encoder in EARLIER:
        return replace(config, name=index.encoder)
    if index and index.model_version in _versions(store, DEFAULT, config.colour):
        return config
    rows = _rows(store, config.colour, looks)
    most = max(EARLIER, key=rows.__getitem__)
    return replace(config, name=most) if rows[most] > rows[DEFAULT] else config


def check_default(store: str, config: EncoderConfig, index: MadeBy | None = None, looks: bool = False) -> None:
    """Raises UsageError where the options name no encoder and the store is one of an earlier default, so that nothing is
    embedded anew, and no index changes its model, unasked."""
    before = standing_default(store, config, index, looks).name
    if before == config.name:
        return
    rows = _rows(store, config.colour, looks)
    whose = f"most of the store's vectors{' of looks' if looks else ''} are"
    if index and index.encoder == before:
        whose = f"the published index {'' if index.name == NAME else f'{index.name!r} '}is"
    raise UsageError(
        f"encoder.name is not set, and {whose} of {before}, the default of an earlier w2w ({rows[before]:,} vectors; "
        f"{rows[DEFAULT]:,} of {DEFAULT}, the default now): set encoder.name={before} to go on as before, or "
        f"encoder.name={DEFAULT} to change to it" + ("" if looks else "; 'w2w bridge' spreads that over several nights")
    )


def check_default_of_looks(store: str, config: EncoderConfig, name: str = LOOKS) -> None:
    """The same of looks. Where there are none yet, the catalog tells."""
    index = made_by(store, name)
    if index or any(_rows(store, config.colour, looks=True).values()):
        check_default(store, config, index, looks=True)
    else:
        check_default(store, config, catalog_made_by(store))


def _rows(store: str, colour: float, looks: bool) -> dict[str, int]:
    """Vectors of each default, in whatever precision and with or without the part for colours; of looks alone, or of all."""
    found = delta.parts(delta.open_table(store, schema.EMBEDDINGS))
    rows = [(dict(part.partition).get(schema.MODEL_VERSION), part.rows) for part in found]
    told = {name: _versions(store, name, colour, looks) for name in (*EARLIER, DEFAULT)} if rows else {}
    return {name: sum(num for version, num in rows if version in told.get(name, ())) for name in (*EARLIER, DEFAULT)}


def _versions(store: str, name: str, colour: float, looks: bool = False) -> set[str]:
    """Model versions of an encoder's vectors, and of looks by every detector; or of these alone."""
    colours = {0.0} if name == DEFAULT else {*_COLOURS, colour}  # today's default has colours by itself
    versions = {
        model_version(EncoderConfig(name, colour=weight, dtype=dtype, store_dtype=stored))
        for weight, dtype, stored in itertools.product(colours, DTYPES, STORE_DTYPES)
    }
    by = {dict(part.partition).get(schema.STAGE_VERSION) for part in delta.parts(delta.open_table(store, schema.LOOKS))}
    seen = {look_version(version, detected) for version, detected in itertools.product(versions, {None, *by})}
    return seen if looks else versions | seen
