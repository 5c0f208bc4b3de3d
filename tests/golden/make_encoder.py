"""Writes encoder.json: some dimensions of the vectors of the encoders that come with w2w, in eager torch:
python -m tests.golden.make_encoder"""

import json
from pathlib import Path

import numpy as np

from tests.unit.models.test_encoder import pictures
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.models.sources import BUILT_IN

golden = {}
for name in BUILT_IN:
    encoder = load_encoder(EncoderConfig(name, engine="torch"))
    vectors_ND = encoder.encode(np.stack([encoder.prepare(p) for p in pictures(3)]))
    dimensions = np.argsort(-vectors_ND[0])[:8].tolist()
    golden[name] = {"dimensions": dimensions, "values": vectors_ND[:, dimensions].round(5).tolist()}
Path(__file__).with_name("encoder.json").write_text(json.dumps(golden) + "\n")
