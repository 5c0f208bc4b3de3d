"""The two stages that give images their vectors, for every job that embeds something."""

from w2w import schema
from w2w.images.decode import DecodeLimits
from w2w.images.stage import PIXELS, pixels_field, to_pixels
from w2w.models.encoder import EncoderConfig, encoder_input
from w2w.models.stage import EMBED_GIVES, Embed
from w2w.runtime.stage import Pool, Stage


def embed_stages(
    encoder: EncoderConfig, limits: DecodeLimits, owner_column: str, owner_kind: str, gpu_pool: Pool | None = None
) -> list[Stage]:
    """bytes -> pixels -> vector. ``gpu_pool``: workers of their own for the model, fed by the decoding ones."""
    shape = encoder_input(encoder)
    pixels = {k: getattr(shape, k) for k in ("size_px", "resize_px", "mode", "resample")}
    model = {"config": encoder, "owner_column": owner_column, "owner_kind": owner_kind}
    return [
        Stage("decode", to_pixels, (schema.BYTES,), pixels_field(shape.size_px), {"limits": limits} | pixels),
        Stage("encode", Embed, (PIXELS, owner_column), EMBED_GIVES, model, gpu_pool),
    ]
