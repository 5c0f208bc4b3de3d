import pytest
import torch

from w2w.errors import UsageError
from w2w.models.pixeldtgan import GanConfig, PixelDTGan, load_gan, save_gan

torch.set_num_threads(1)  # with more, a loaded machine spends its time on waiting for threads


def gan(seed: int = 0) -> PixelDTGan:
    torch.manual_seed(seed)
    return PixelDTGan(GanConfig(channels=8, code=16))


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_shapes_and_range():
    network = gan().eval()
    with torch.inference_mode():
        drawn = network.draw(pictures(0))
        assert drawn.shape == (2, 3, 64, 64)
        assert drawn.abs().max() <= 1
        assert network.real(drawn).shape == (2, 1)
        assert network.domain(torch.cat([drawn, drawn], 1)).shape == (2, 1)
        alone = network.draw(pictures(0)[:1])
    assert torch.allclose(alone, drawn[:1], atol=1e-6)  # whatever else is drawn beside it


def test_each_part_of_the_loss_reaches_its_own_network_alone():
    for part, own in (("real", "real"), ("domain", "domain"), ("converter", "converter"), ("pixels", "converter")):
        network = gan()
        network(pictures(0), pictures(1), pictures(2))[part].backward()
        reached = {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == {own}


def test_the_critics_are_asked_what_the_paper_asks():
    network, (worn, product, other) = gan().eval(), (pictures(i) for i in range(3))
    with torch.inference_mode():
        found = network(worn, product, other)
        drawn = network.draw(worn)
        say = {k: torch.sigmoid(network.real(p)).log() for k, p in (("product", product), ("other", other))}
        say["drawn"] = torch.log(1 - torch.sigmoid(network.real(drawn)))
        belongs = torch.sigmoid(network.domain(torch.cat([worn, product], 1))).log()
        belongs = belongs + sum(torch.log(1 - torch.sigmoid(network.domain(torch.cat([worn, p], 1)))) for p in (other, drawn))
    assert found["real"].item() == pytest.approx(-sum(v.mean().item() for v in say.values()) / 3, rel=1e-4)
    assert found["domain"].item() == pytest.approx(-belongs.mean().item() / 3, rel=1e-4)
    assert found["pixels"].item() == pytest.approx(10 * (drawn - product).abs().mean().item(), rel=1e-4)


def test_it_comes_back_from_its_folder(tmp_path):
    network = gan().eval()
    save_gan(network, tmp_path)
    assert torch.equal(load_gan(tmp_path).draw(pictures(0)), network.draw(pictures(0)))
    for settings in ({"channels": 12}, {"pixels": -1.0}, {"pixels": float("nan")}):
        with pytest.raises(UsageError, match="gan"):
            GanConfig(**settings)
