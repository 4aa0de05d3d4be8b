"""Figures, tables, the atlas, the report and the closing summary, made from reduced results.

Modules here may import from every other package except :mod:`convergent.config`.
"""
