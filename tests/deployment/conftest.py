"""The small planned datasets of the runtime's tests."""

from tests.runtime.conftest import datasets, planned_datasets

__all__ = ["datasets", "planned_datasets"]
