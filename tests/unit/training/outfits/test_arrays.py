import numpy as np

from w2w.training.outfits.arrays import WORN, Outfits, blanks, modified_by_worn

# five items of three slots; outfit 3 has two items only
MADE = Outfits(
    np.arange(14, dtype=np.float32).reshape(7, 2),
    np.array([[0, 2, 4], [1, 2, 5], [0, 3, 4], [1, 3, -1], [1, 2, 4], [0, 2, 6]]),
    np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, -1], [0, 1, 2], [0, 1, 2]]),
    np.array([WORN, WORN, 0, WORN, 1, 0]),
    ("top", "bottom", "shoes"),
)


def test_worn_and_modified_outfits():
    assert MADE.worn.tolist() == [0, 1, 3]
    assert MADE.modified.tolist() == [2, 4, 5]
    start, rows = modified_by_worn(MADE)
    assert [rows[start[o] : start[o + 1]].tolist() for o in range(6)] == [[2, 5], [4], [], [], [], []]
    assert MADE.vectors(MADE.items_OS[3:4]).tolist() == [[[2, 3], [6, 7], [0, 0]]]


def test_a_part_keeps_what_was_made_of_what():
    part = MADE.among(np.array([False, True, True, True, True, True]))
    assert part.items_OS.tolist() == [[1, 2, 5], [1, 3, -1], [1, 2, 4]]  # those made of outfit 0 went with it
    assert part.modified_of_O.tolist() == [WORN, WORN, 0]
    assert part.vectors_ND is MADE.vectors_ND


def test_blanks_ask_for_one_item_among_others_of_its_slot():
    rng = np.random.default_rng(0)
    items = np.stack([rng.integers(0, 20, 50), rng.integers(20, 40, 50), rng.integers(40, 60, 50)], 1)
    made = Outfits(np.zeros((60, 2), np.float32), items, np.tile(np.arange(3), (50, 1)), np.full(50, WORN), MADE.slots)
    asked = blanks(made, 4, np.random.default_rng(1))
    assert asked.items_QAS.shape == asked.slots_QAS.shape == (50, 4, 3)
    places = set()
    for answers, right, worn in zip(asked.items_QAS, asked.right_Q, items):
        assert answers[right].tolist() == worn.tolist()
        others = np.delete(answers, right, 0)
        (blank,) = {int(b) for b in np.nonzero(others != worn)[1]}
        assert len(set(answers[:, blank].tolist())) == 4
        assert (others[:, blank] // 20 == blank).all()
        places.add((blank, int(right)))
    assert len(places) == 12  # every slot is asked for, and the right answer stands anywhere
    again = blanks(made, 4, np.random.default_rng(1))
    assert (again.items_QAS == asked.items_QAS).all()


def test_without_enough_others_there_is_no_question():
    assert len(blanks(MADE, 4, np.random.default_rng(0))) == 0
    assert len(blanks(MADE, 2, np.random.default_rng(0))) == 3
