"""Inference: the uncertainty of measures of a pair of nets, from the stored blocks of images.

May import from :mod:`convergent.alignment` and the rooms below it.
"""
