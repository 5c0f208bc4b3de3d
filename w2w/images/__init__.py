"""Encoded images from anywhere: safe decoding, perceptual hashes, a model's input size."""
