"""Relighting a picture."""

import cv2
import numpy as np


def lit(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Exposure, contrast and colour of light by a table per channel; saturation and hue by HSV; a few photos become grey."""
    gain = np.exp(strength * rng.uniform(-0.3, 0.3)) * np.exp(strength * rng.uniform(-0.08, 0.08, 3))
    contrast, gamma = np.exp(strength * rng.uniform(-0.25, 0.25)), np.exp(strength * rng.uniform(-0.25, 0.25))
    ramp = (np.arange(256) / 255)[:, None] ** gamma
    table = np.clip(((ramp - 0.5) * contrast + 0.5) * gain * 255, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table.reshape(1, 256, 3) if image.ndim == 3 else table)
    if rng.random() < 0.04 * strength:
        return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hue = (np.arange(256) + strength * rng.uniform(-9, 9)) % 180
    saturation = np.clip(np.arange(256) * np.exp(strength * rng.uniform(-0.4, 0.4)), 0, 255)
    tables = np.stack([hue, saturation, np.arange(256)], 1).astype(np.uint8)
    return cv2.cvtColor(cv2.LUT(hsv, tables.reshape(1, 256, 3)), cv2.COLOR_HSV2RGB)
