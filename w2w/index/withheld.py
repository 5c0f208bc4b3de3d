"""A published version without the pictures that search may no longer use. They leave it before anything is built, so that they
are found no more where no new version can be published, and where one rolls back to a version that had them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.errors import JobFailed, StorageFailed, UsageError
from w2w.ids import digest
from w2w.index import seen, truth
from w2w.index.layers import read_dropped, write_dropped
from w2w.index.manifest import GateResult, Manifest
from w2w.index.publish import Published, publish, published, time_of, withdraw, write_version
from w2w.index.shard import read_rows, rows_digest
from w2w.schema import CATEGORY, IMAGE_ID, PERMISSIONS

log = logging.getLogger("w2w")

NOTHING_LEFT = "search may not use any of the pictures that were published"


@dataclass(frozen=True)
class Withheld:
    """``masks``: for each shard of a version which rows search may not use, bool (rows,), without those that are dropped."""

    manifest: Manifest
    masks: tuple[np.ndarray, ...]

    @staticmethod
    def of(uri: str, manifest: Manifest, refused: pa.Array) -> "Withheld":
        """``refused``: image ids."""
        masks = []
        for info in manifest.shards:
            is_refused = pc.is_in(read_rows(uri, info)[IMAGE_ID], value_set=refused).to_numpy(zero_copy_only=False)
            masks.append(is_refused & ~read_dropped(uri, info))
        return Withheld(manifest, tuple(masks))

    @property
    def num(self) -> int:
        return sum(int(mask.sum()) for mask in self.masks)

    @property
    def num_left(self) -> int:
        return self.manifest.num_rows - self.num

    def without(self, uri: str, standing: Mapping[str, Any]) -> Manifest:
        """The version without them, which takes its place: it has its time, and what its gate measured. ``standing``: what is
        known of the tables that its rows are of."""
        shards, parts = [], []
        for info, mask in zip(self.manifest.shards, self.masks, strict=True):
            gone = read_dropped(uri, info) | mask
            if not gone.all():
                shards.append(write_dropped(uri, info, gone) if mask.any() else info)
                rows = read_rows(uri, info).filter(pa.array(~gone))
                parts.append(rows.append_column(CATEGORY, pa.repeat(pa.scalar(info.category), rows.num_rows)))
        before, used = self.manifest, {shard.template for shard in shards}
        return replace(
            before,
            version=f"{time_of(before.version)}-{digest([s.content for s in shards], before.model_version, length=8)}",
            shards=tuple(shards),
            templates=tuple(t for t in before.templates if t.name in used),
            rows_digest=rows_digest(pa.concat_tables(parts).combine_chunks(), before.model_version, before.config),
            standing=dict(standing),
        )


def withhold(
    uri: str, base: Published, refused: pa.Array, standing: Mapping[str, Any], dry_run: bool = False
) -> tuple[Published, int]:
    """What is published after the refused pictures have left it, and their number. ``standing``: of the tables, from before
    ``refused`` was read, and "permitted", its digest, by which a version that was made without them is known."""
    now = base.manifest
    if now is None or not len(refused) or now.standing.get("permitted") == standing["permitted"]:
        return base, 0
    try:
        found = Withheld.of(uri, now, refused)
    except StorageFailed:
        raise
    except (FileNotFoundError, pa.ArrowInvalid, JobFailed) as e:
        log.warning("index %s is damaged, so nothing is found in it: %s", now.name, e)
        return base, 0
    if not found.num or dry_run:
        return base, found.num
    if not found.num_left:
        withdraw(uri, NOTHING_LEFT, base)
    else:
        publish(
            uri,
            found.without(uri, _of_permissions(standing)),
            now.gate or GateResult(True, (), 0.0, {}),
            base,
            *_known(uri, now),
        )
    log.warning("index %s: %d pictures that search may no longer use have left the published version", now.name, found.num)
    return published(uri), found.num


def target_without(uri: str, target: Manifest, refused: pa.Array) -> Manifest:
    """The version to roll back to: this one, or it without the refused pictures. Raises UsageError if nothing is left of it."""
    found = Withheld.of(uri, target, refused)
    if not found.num:
        return target
    if not found.num_left:
        raise UsageError(f"{uri}: not rolled back to {target.version}: search may not use any of its pictures")
    left = found.without(uri, {})
    write_version(uri, left, left.gate or GateResult(True, (), 0.0, {}), *_known(uri, target))
    return left


def _of_permissions(standing: Mapping[str, Any]) -> dict[str, Any]:
    """The rows are no more those of any other table as it stood."""
    name = PERMISSIONS.name
    return {"permitted": standing["permitted"], "tables": {n: at for n, at in standing["tables"].items() if n == name}}


def _known(uri: str, manifest: Manifest) -> tuple[bytes, bytes, bytes]:
    """What the gate of a version knew: truth, what shoppers see, stock."""
    tables = truth.read_truth(uri, manifest), seen.read_seen(uri, manifest), seen.read_stock(uri, manifest.version)
    known, saw, stock = tables
    return (
        truth.to_bytes(known) if known is not None else b"",
        seen.to_bytes(saw) if saw is not None else b"",
        seen.to_bytes(stock) if stock is not None else b"",
    )
