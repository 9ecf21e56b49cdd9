"""Every error this package raises on purpose, as one tree.

    FedMEPDError
    ├── ConfigurationError     a setting, a plans file or a federation file says something impossible
    │   └── ModalityError      a modality name nobody knows, a doubled one, a changed order
    ├── DatasetError           an image, a label map or a dataset folder is not what it should be
    └── UnsupportedError       nnU-Net offers it, this package does not (cascade, several GPUs)

The message always says what was expected, what was found, where, and what to do about it.
"""

from __future__ import annotations

from os import PathLike


class FedMEPDError(Exception):
    """Base of all deliberate errors; the command line prints its message without a traceback."""


class ConfigurationError(FedMEPDError, ValueError):
    """A setting, a plans file or a federation file is invalid."""


class ModalityError(ConfigurationError):
    """A modality is unknown, named twice, or not in the place where it was expected."""


class UnsupportedError(FedMEPDError):
    """A feature of nnU-Net that this package does not support."""


class DatasetError(FedMEPDError):
    """Data on disk is not what it should be.

    Args:
        problem: one short sentence without a full stop.
        case: case identifier, where one case is at fault.
        file: the file or folder at fault.
        expected: what should have been there.
        found: what was there.
        remedy: what the reader can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        case: str | None = None,
        file: str | PathLike[str] | None = None,
        expected: object | None = None,
        found: object | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.case, self.file = problem, case, file
        self.expected, self.found, self.remedy = expected, found, remedy
        parts = {"case": case, "file": file, "expected": expected, "found": found, "what to do": remedy}
        super().__init__("\n".join([problem, *(f"  {k}: {v}" for k, v in parts.items() if v is not None)]))
