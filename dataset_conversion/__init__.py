"""BraTS releases to nnU-Net datasets, one per site, and predictions back to BraTS labels.

layouts.py     how each release names its folders, files and labels
discovery.py   the cases of a release on disk
assignment.py  which cases and modalities a site has
splits.py      assignments by table, institution or the published federation
validation.py  everything that can be wrong with a case, found before anything is written
writing.py     one nnU-Net raw dataset
conversion.py  all of the above in one call
prediction.py  predictions back to BraTS labels
blank.py       blank images for scans that a case to predict lacks
"""

from dataset_conversion.assignment import SiteAssignment
from dataset_conversion.conversion import convert_brats, convert_cases
from dataset_conversion.discovery import Case, find_cases
from dataset_conversion.layouts import LAYOUTS, Layout, find_layout
from dataset_conversion.prediction import convert_predictions
from dataset_conversion.site_modalities import with_modalities
from dataset_conversion.splits import hold_out, split_as_published, split_by_institution, split_by_table

__all__ = [
    "LAYOUTS",
    "Case",
    "Layout",
    "SiteAssignment",
    "convert_brats",
    "convert_cases",
    "convert_predictions",
    "find_cases",
    "find_layout",
    "hold_out",
    "split_as_published",
    "split_by_institution",
    "split_by_table",
    "with_modalities",
]
