"""Writes encoder.json: some dimensions of the default encoder's vectors in eager torch: python -m tests.golden.make_encoder"""

import json
from pathlib import Path

import numpy as np

from tests.unit.models.test_encoder import pictures
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder

encoder = load_encoder(EncoderConfig(engine="torch"))
vectors_ND = encoder.encode(np.stack([encoder.prepare(p) for p in pictures(3)]))
dimensions = np.argsort(-vectors_ND[0])[:8].tolist()
values = vectors_ND[:, dimensions].round(5).tolist()
Path(__file__).with_name("encoder.json").write_text(json.dumps({"dimensions": dimensions, "values": values}) + "\n")
