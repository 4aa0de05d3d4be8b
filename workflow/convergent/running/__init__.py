"""Stores, records of origin, code fingerprints, devices, Dask schedulers and progress bars.

No science. This package imports from no other, and every other may import from it.
"""
