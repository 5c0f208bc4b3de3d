"""w2w ("what to wear"): a batch data platform on Ray for fashion images."""

__version__ = "0.1.0"
