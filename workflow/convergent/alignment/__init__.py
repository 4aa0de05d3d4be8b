"""Alignments of many units: sparse maps by the LASSO, trees and graphs of units, clusters.

May import from :mod:`convergent.measures` and the rooms below it.
"""
