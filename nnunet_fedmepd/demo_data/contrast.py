"""Mean signal of each tissue and lesion in each modality; in arbitrary units, the brightest normal tissue near 1000."""

from __future__ import annotations

# The order in which modalities are drawn; it is part of every generated data set.
MODALITIES = ("FLAIR", "T1", "T1ce", "T2")

TISSUE_SIGNAL: dict[str, tuple[int, int, int, int]] = {
    "csf": (150, 260, 255, 1050),
    "grey": (520, 610, 600, 590),
    "white": (450, 800, 760, 430),
}

LESION_SIGNAL: dict[str, tuple[int, int, int, int]] = {
    "oedema": (860, 600, 590, 820),
    "enhancing": (700, 560, 1010, 680),
    "necrosis": (560, 400, 400, 900),
    "non_enhancing": (800, 520, 530, 850),
    "hyperintensity": (800, 680, 660, 620),
    "vessel": (250, 520, 1150, 250),
    "choroid": (420, 480, 950, 820),
    "meninges": (430, 520, 880, 600),
    "blood": (600, 850, 890, 560),
}
