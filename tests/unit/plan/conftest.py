"""The shop, store and clock of the other nights."""

from tests.unit.nights.conftest import clock, shop, store

__all__ = ["clock", "shop", "store"]
