"""Maps between two models' vectors: what is fitted, which is chosen, and that figures are of products it was not fitted to."""

import numpy as np
import pyarrow as pa
import pytest

from w2w.bridge import rules
from w2w.errors import UsageError

N = 600
PRODUCTS = pa.array([f"p{i}" for i in range(N)])
PARTS = rules.parts_of(PRODUCTS, 0)


def units(vectors_ND: np.ndarray) -> np.ndarray:
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32)


def hidden(dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, dim))


def rotation(rows: int, columns: int) -> np.ndarray:
    """Orthonormal rows."""
    return np.linalg.qr(np.random.default_rng(9).normal(size=(columns, columns)))[0][:rows]


def recall(new_ND, old_ND) -> tuple[str, dict]:
    fitted = rules.fit(new_ND, old_ND, PARTS)
    return fitted.map.name, rules.measure(fitted.map, new_ND, old_ND, PARTS, PRODUCTS, 0)


@pytest.mark.parametrize(("new_dim", "old_dim"), [(12, 12), (12, 20)])
def test_a_rotation_is_found_again(new_dim, old_dim):
    new_ND = units(hidden(new_dim) + 0.5)
    name, found = recall(new_ND, units(new_ND @ rotation(new_dim, old_dim)))
    assert name == "orthogonal"
    assert {figure.value for figure in found.values()} == {1.0}


def test_of_longer_vectors_those_axes_are_found_that_the_old_ones_have():
    new_ND = units(np.hstack([hidden(12), 0.01 * hidden(8, 1)]))
    assert recall(new_ND, units(new_ND[:, :12]))[1]["of old"].value > 0.97


def test_axes_that_are_stretched_take_more_than_a_rotation():
    latent = hidden(16)
    new_ND, old_ND = units(latent @ np.diag(np.linspace(0.3, 3, 16))), units(latent + 1)
    name, found = recall(new_ND, old_ND)
    assert name.startswith("affine")
    assert found["of old"].value > 0.6
    assert found["of old"].value > found["of new"].value


def test_vectors_longer_than_the_sample_has_rows():
    new_ND = units(np.hstack([hidden(8), 0.1 * hidden(152, 1)]))[:240]
    old_ND = units(np.hstack([hidden(8) @ np.diag(np.linspace(0.5, 2, 8)), 0.1 * hidden(192, 2)]))[:240]
    parts_N = rules.parts_of(PRODUCTS[:240], 0)
    fitted = rules.fit(new_ND, old_ND, parts_N)
    assert fitted.map.matrix.shape == (160, 200)
    assert rules.measure(fitted.map, new_ND, old_ND, parts_N, PRODUCTS[:240], 0)["of old"].value > 0.3


def test_models_with_nothing_in_common_share_no_neighbours():
    _, found = recall(units(hidden(16)), units(hidden(16, 1)))
    assert found["of old"].value < 0.1
    assert found["of old"].low <= found["of old"].value <= found["of old"].high


def test_what_is_learnt_by_heart_is_not_measured():
    """With more dimensions than rows any map fits what it has seen."""
    new_ND, old_ND = units(hidden(500)), units(hidden(16, 1))
    made = rules._candidates(new_ND[PARTS != rules.TEST], old_ND[PARTS != rules.TEST])
    by_heart = next(m for m in made if m.name == "affine, rank 16, ridge 1e-06")
    seen = np.flatnonzero(PARTS == rules.FIT)
    assert rules._recall(by_heart(new_ND[seen]), old_ND, old_ND, seen).mean() > 0.9
    assert rules.measure(by_heart, new_ND, old_ND, PARTS, PRODUCTS, 0)["of old"].value < 0.2


def test_new_products_that_lie_apart_are_seen():
    """Each mapped vector finds its neighbours, but old ones do not find it: it is off to one side with all that are mapped."""
    old_ND = units(hidden(12) + 0.5)
    beside = rules.Map("beside", np.eye(12, dtype=np.float32), np.full(12, 0.6, np.float32))
    found = rules.measure(beside, old_ND, old_ND, PARTS, PRODUCTS, 0)
    straight = rules.measure(
        rules.Map("as is", np.eye(12, dtype=np.float32), np.zeros(12, np.float32)), old_ND, old_ND, PARTS, PRODUCTS, 0
    )
    assert straight["with new products"].value == 1
    assert found["with new products"].value < 0.85


def test_pictures_of_a_product_are_in_one_part():
    products = pa.array([f"p{i // 3}" for i in range(N)])
    parts_N = rules.parts_of(products, 1)
    assert len({(i // 3, part) for i, part in enumerate(parts_N.tolist())}) == N // 3
    assert np.bincount(parts_N) == pytest.approx([N / 2, N / 4, N / 4], rel=0.25)
    assert (parts_N != rules.parts_of(products, 2)).any()


def test_too_small_a_sample_is_refused():
    with pytest.raises(UsageError, match=r"at least 120 pictures .* there are 100"):
        rules.check_sample(PARTS[:100])
    with pytest.raises(UsageError, match="at least 120 pictures"):
        rules.check_sample(np.zeros(500, np.int8))


def test_a_tie_with_the_tenth_counts_as_found():
    gallery_ND = np.repeat(np.eye(4, dtype=np.float32), 15, 0)
    rows = np.arange(60)
    assert rules._recall(gallery_ND, gallery_ND, gallery_ND, rows).tolist() == [1.0] * 60
