"""Pictures of what a unit sees: patches of images, receptive fields, deconvolutions.

May import from :mod:`convergent.alignment` and the rooms below it.
"""
