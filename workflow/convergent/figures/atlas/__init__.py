"""The atlas: a page on which to explore a run, the data that it shows, and a reader of them.

A browser allows a page opened from the disk to load scripts and pictures beside it, but nothing
else. The data are therefore scripts; :mod:`convergent.figures.atlas.files` has their form, and
``docs/atlas.md`` lists them. Readers need nothing that draws: what writes the atlas
(:mod:`convergent.figures.atlas.writing`) sets Matplotlib's style.
"""

from convergent.figures.atlas.files import read

__all__ = ["read"]
