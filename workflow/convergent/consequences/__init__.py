"""Consequences: what an alignment of units is good for.

Nets are changed by what was found of their units, and scored by how well they still classify.
Whatever is chosen from activations is chosen on one half of the images and scored on the other.
"""
