"""Images, architectures, weights and training.

May import from :mod:`convergent.running` alone; every later package may import from it.
"""
