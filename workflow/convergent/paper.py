"""Numbers that the paper prints, and constants that it chooses."""

from __future__ import annotations

# Section 2: the four nets' top-1 accuracy on ImageNet.
PAPER_TOP1 = (0.5865, 0.5873, 0.5879, 0.5884)
# Section 4: share of Net1's units with no match in Net2 of a correlation above 0.5.
PAPER_UNMATCHED = {"conv1": 0.17, "conv2": 0.37, "conv3": 0.63, "conv4": 0.92, "conv5": 0.75}
# Section 3.2: how many of the eight best matched pairs stay the best.
PAPER_TOP8 = {"conv1": 7}
# Table 1: prediction loss of mapping layers after 4,500 iterations of SGD, by decay.
PAPER_LOSS = {
    "conv1": (0.170, 0.169, 0.162, 0.172, 0.484, 0.517),
    "conv2": (0.372, 0.368, 0.337, 0.392, 0.518, 0.514),
    "conv3": (0.434, 0.427, 0.383, 0.462, 0.497, 0.496),
    "conv4": (0.478, 0.470, 0.423, 0.477, 0.489, 0.488),
    "conv5": (0.484, 0.478, 0.439, 0.436, 0.478, 0.477),
}

# Section 4: weights per unit of the maps that the paper chooses, and their loss (conv2: table 1).
PAPER_SPARSE = {"conv1": (4.7, 0.235), "conv2": (2.5, 0.392)}

# Section S.3.5: leaves of Net1 and Net2.
PAPER_LEAVES = {"conv1": 43, "conv2": 113, "conv3": 130, "conv4": 155, "conv5": 131}

# Section S.3: number of spectral clusters.
PAPER_CLUSTERS = {"conv1": 40} | dict.fromkeys(
    ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7"), 100
)
# Bins of mutual information (section 3.2, footnote 8).
BINS = 21
# Weights of the L1 penalty in table 1.
PAPER_DECAYS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
# What the paper calls significantly non-zero (section 4): SGD leaves no weight at zero.
SIGNIFICANT = 1e-3
