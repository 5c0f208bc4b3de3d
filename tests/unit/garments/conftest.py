"""Photos that several modules look at."""

import pytest

from w2w.wardrobe.garment import generator, make_garment
from w2w.wardrobe.photo import street_photo
from w2w.wardrobe.shop import outfit


@pytest.fixture(scope="session")
def street():
    """Rendered photos that no training saw: another seed."""
    garments = [make_garment(901, i) for i in range(60)]
    return [street_photo(901, n, outfit(garments, generator("outfit", 901, n))) for n in range(12)]
