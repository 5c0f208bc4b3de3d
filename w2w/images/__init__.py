"""Encoded images: safe decoding, perceptual hashes, resizing to a model's input."""
