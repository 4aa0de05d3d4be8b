"""Similarity of units and of layers, one file a measure, and the assignments made from it.

May import from :mod:`convergent.activations` and the rooms below it.
"""
