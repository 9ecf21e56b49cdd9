"""Federated brain-tumour (and any other multi-modal) segmentation for nnU-Net v2: FedMEPD and its variants."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nnunet-fedmepd")
except PackageNotFoundError:  # a source tree on PYTHONPATH, never installed
    __version__ = "0+uninstalled"
