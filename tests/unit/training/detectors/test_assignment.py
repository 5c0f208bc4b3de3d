import pytest
import torch

from tests.unit.training.ranks import in_two
from w2w.garments.grid import places
from w2w.training.detectors.assignment import Target, assign, iou, losses, within

NONE = torch.empty(0, 4)
ALL = torch.ones(7, dtype=torch.bool)
PLACES = torch.from_numpy(places(64, 64))


def target(boxes, labels, ignore=(), labelled=ALL) -> Target:
    as_boxes = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in (boxes, ignore)]
    return Target(as_boxes[0], torch.tensor(labels, dtype=torch.long), as_boxes[1], labelled)


def output(score: float = -4.0):
    """Of an untrained network, one photo of 64 x 64: places, 8 px to each side, pixels."""
    scores = torch.full((1, len(PLACES), 7), score, requires_grad=True)
    sides = torch.full((1, len(PLACES), 4), 8.0, requires_grad=True)
    pixels = torch.zeros(1, 8, 8, 8, requires_grad=True)
    return scores, sides, pixels


@pytest.mark.parametrize(
    ("a", "b", "overlap", "generalised"),
    [((0, 0, 2, 2), (0, 0, 2, 2), 1, 1), ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3, 1 / 3), ((0, 0, 1, 1), (3, 0, 4, 1), 0, -0.5)],
)
def test_overlaps(a, b, overlap, generalised):
    a, b = torch.tensor([a, b], dtype=torch.float32)
    assert iou(a, b).item() == pytest.approx(overlap)
    assert iou(a, b, True).item() == pytest.approx(generalised)


def test_the_best_place_should_score_its_overlap():
    truth = target([(8, 8, 40, 40)], [2])
    boxes = torch.cat([PLACES - 8, PLACES + 8], 1)
    at = ((PLACES - 20).abs().sum(1) == 0).nonzero()[0, 0]  # stride 8: its centre is (20, 20)
    boxes[at] = torch.tensor([8.0, 8, 40, 36])
    owner, wanted = assign(torch.full((len(PLACES), 7), -2.0), boxes, PLACES, truth)
    assert owner[at] == 0
    assert wanted[at].item() == pytest.approx(28 / 32, abs=1e-3)
    assert wanted.argmax() == at
    assert 1 <= (owner == 0).sum() <= 10
    inside = ((PLACES > 8) & (PLACES < 40)).all(1)
    assert (owner[~inside] == -1).all()


def test_a_garment_too_small_for_any_place_gets_the_nearest():
    owner, _ = assign(torch.zeros(len(PLACES), 7), torch.cat([PLACES - 8, PLACES + 8], 1), PLACES, target([(0, 0, 2, 2)], [5]))
    assert (owner == 0).nonzero()[:, 0].tolist() == [0]


def test_what_shows_of_a_top_has_its_places_in_the_middle_of_the_coat():
    coat, top = (0, 0, 64, 64), (16, 8, 48, 40)
    boxes = torch.tensor([coat], dtype=torch.float32).expand(len(PLACES), 4)  # every place sees the coat
    owner, wanted = assign(torch.zeros(len(PLACES), 7), boxes, PLACES, target([coat, top], [4, 6]))
    assert (owner == 1).sum() == (owner == 0).sum() == 10
    assert within(PLACES, torch.tensor([top]))[0][owner == 1].all()
    assert wanted[owner == 1].tolist() == pytest.approx([1 / 4] * 10, rel=1e-2)


def test_no_garment_no_place():
    owner, wanted = assign(torch.zeros(len(PLACES), 7), torch.zeros(len(PLACES), 4), PLACES, target([], []))
    assert (owner == -1).all()
    assert not wanted.any()


def gradient(truth: Target, classes=0):
    scores, sides, pixels = output()
    parts = losses((scores, sides, pixels), [truth], torch.full((1, 64, 64), classes, dtype=torch.uint8))
    sum(parts.values()).backward()
    return scores.grad[0], pixels.grad


def test_a_region_to_ignore_teaches_nothing():
    taught, _ = gradient(target([], [], [(0, 0, 33, 64)]))
    left = PLACES[:, 0] < 33
    assert not taught[left].any()
    assert taught[~left].all()


def test_a_garment_in_a_region_to_ignore_still_teaches():
    taught, _ = gradient(target([(4, 4, 30, 30)], [0], [(0, 0, 64, 64)]))
    assert (taught[:, 0] < 0).any()
    assert taught.any(1).sum() <= 10


def test_a_class_that_the_source_does_not_label_is_neither_right_nor_wrong():
    known = ALL.clone()
    known[[1, 3]] = False
    taught, _ = gradient(target([(4, 4, 30, 30)], [0], labelled=known))
    assert not taught[:, [1, 3]].any()
    assert taught[:, [0, 2, 4, 5, 6]].all()


def test_unknown_pixels_teach_nothing():
    assert not gradient(target([], []), 255)[1].any()
    assert gradient(target([], []), 0)[1].any()


def test_losses_of_a_certain_output():
    """Frozen: a change here is a change of every trained model."""
    scores, sides, pixels = output()
    classes = torch.zeros((1, 64, 64), dtype=torch.uint8)
    parts = losses((scores, sides, pixels), [target([(8, 8, 40, 40)], [2])], classes)
    assert {k: round(v.item(), 4) for k, v in parts.items()} == GOLDEN


GOLDEN = {"scores": 0.4093, "boxes": 3.0394, "pixels": 1.0397}


@pytest.mark.parametrize(("wide", "weight"), [(16, 0.5), (48, 0.75)])
def test_the_box_of_a_garment_that_is_badly_seen_teaches_too(wide, weight):
    """All places see a box of an overlap of wide / 64: the box loss is 1 - GIoU, by ``weight`` over that overlap."""
    scores, _, pixels = output()
    far = torch.cat([PLACES, torch.tensor([wide, 64]) - PLACES], 1)[None]
    parts = losses((scores, far, pixels), [target([(0, 0, 64, 64)], [2])], torch.zeros((1, 64, 64), dtype=torch.uint8))
    assert parts["boxes"].item() == pytest.approx(2 * (1 - wide / 64) * weight / (wide / 64), rel=1e-3)


def taught(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of a scale of all scores and of all pixels, over photos with three garments, with one and with none."""
    truths = [target([(8, 8, 40, 40), (0, 0, 20, 20), (30, 30, 60, 60)], [2, 1, 3]), target([(4, 4, 50, 50)], [5])]
    truths += [target([], []), target([], [])]
    classes = torch.zeros(4, 64, 64, dtype=torch.uint8)
    classes[0, :48] = 255  # unknown: of this photo fewer pixels teach
    scales = torch.nn.ParameterList([torch.ones(7), torch.ones(8, 1, 1)])

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = scales

        def forward(self, photos):
            start = torch.linspace(-4, 2, len(PLACES) * 7).view(1, -1, 7)
            pixels = torch.linspace(-1, 1, 8 * 64).view(1, 8, 8, 8)
            sides = torch.full((len(photos), len(PLACES), 4), 8.0)
            return (start + photos[:, None, None]) * scales[0], sides, (pixels + photos[:, None, None, None]) * scales[1]

    network = torch.nn.parallel.DistributedDataParallel(Network()) if torch.distributed.is_initialized() else Network()
    found = losses(network(torch.tensor([0.0, 0.1, 0.2, 0.3])[rows]), truths[rows], classes[rows])
    sum(found.values()).backward()
    return tuple(p.grad for p in scales)


def of_rank(rank: int):
    return taught(slice(2 * rank, 2 * rank + 2))


@pytest.mark.slow  # two processes import torch
def test_two_processes_have_the_gradients_of_one(tmp_path):
    one, two = taught(slice(0, 4)), in_two(of_rank, tmp_path)
    for mine, first, second in zip(one, *two):
        assert mine.abs().max() > 1e-3
        assert torch.equal(first, second)
        torch.testing.assert_close(first, mine, rtol=1e-4, atol=1e-6)
