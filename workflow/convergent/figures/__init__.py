"""Figures, tables, the atlas's data and the closing summary, all from small reduced results.

May import from :mod:`convergent.units` and every other room but :mod:`convergent.config`.
"""
