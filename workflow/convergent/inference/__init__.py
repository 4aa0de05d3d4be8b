"""Inference: how certain a measure of a pair of nets is, from the blocks of images that are stored.

May import from :mod:`convergent.alignment` and the rooms below it.
"""
