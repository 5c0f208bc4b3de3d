"""Options for training on a folder in LookBook's layout. Plain values, read without importing torch."""

from dataclasses import dataclass, field

from w2w.errors import UsageError
from w2w.models.options import GanConfig, SiameseConfig

SIAMESE, PIXELDTGAN = "siamese", "pixeldtgan"


@dataclass(frozen=True)
class LookbookConfig:
    """Products, photos of people who wear them, and the networks that learn from these."""

    path: str = ""
    """Folder of pictures named like PID000001_CLEAN1_IID000000.jpg (alone) or CLEAN0 (worn), the same on every machine.
    `python -m w2w.wardrobe.lookbook FOLDER` renders one."""
    least_worn: int = 10
    """Leave out products with fewer photos of somebody wearing them."""
    test_share: float = 0.22
    """Share of products held out for the final evaluation. The report: 556 of 2,556."""
    val_share: float = 0.05
    """Share of the other products held out to choose the step that is kept. --published holds none out."""
    galleries: list[int] = field(default_factory=lambda: [50, 300])
    """Experiments 2 and 3: gallery sizes, at most all test products."""
    batch: int = 64
    """Pairs (siamese) or products (pixeldtgan) in a batch of one worker."""
    siamese: SiameseConfig = field(default_factory=SiameseConfig)
    """The Siamese network."""
    gan: GanConfig = field(default_factory=GanConfig)
    """PixelDTGAN."""

    def __post_init__(self):
        for name, least in (("least_worn", 1), ("batch", 2)):
            if getattr(self, name) < least:
                raise UsageError(f"lookbook.{name}={getattr(self, name)}: must be at least {least}")
        if not 0 < self.test_share < 1 or not 0 <= self.val_share < 1:
            raise UsageError("lookbook.test_share and lookbook.val_share: shares below 1, with some products left for the test")
        if not self.galleries or min(self.galleries) < 2:
            raise UsageError(f"lookbook.galleries={self.galleries}: one number of products or several, each at least 2")
