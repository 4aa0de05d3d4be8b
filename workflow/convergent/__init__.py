"""Convergent learning: which features nets that start from different seeds share.

The modules are named after the concepts of Li, Yosinski, Clune, Lipson and Hopcroft,
"Convergent Learning" (ICLR 2016), and data flows through them one way:
datasets, models, training, activations, moments, mutual_information, matching, tables, figures.
"""


class ConvergentError(Exception):
    """A fault of the input; its message says what is wrong, where, and what would be right."""
