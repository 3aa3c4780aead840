"""Deblurring models: one blurry image in, T sharp frames out."""
