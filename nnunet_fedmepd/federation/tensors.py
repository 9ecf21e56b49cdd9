"""Nested dictionaries of tensors as flat ones, `section/key/name` -> tensor, and back.

Only the last part of a name is a parameter's; parameters have no `/` in their names, modalities may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.maths.parameters import FilterSubset

Flat = Mapping[str, Tensor]


class LayoutError(FedMEPDError):
    """Flat tensors are not what they should hold."""


def put(section: str, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `parameters` with their names put under a section."""
    return {f"{section}/{name}": tensor for name, tensor in parameters.items()}


def take(flat: Flat, section: str) -> dict[str, Tensor]:
    """Return the tensors of a section by their own names; the inverse of `put`."""
    prefix = section + "/"
    return {name.removeprefix(prefix): tensor for name, tensor in flat.items() if name.startswith(prefix)}


def put_nested(section: str, parameters: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return dictionaries of parameters, such as one an encoder, under a section."""
    return {f"{section}/{key}/{name}": tensor for key, own in parameters.items() for name, tensor in own.items()}


def take_nested(flat: Flat, section: str) -> dict[str, dict[str, Tensor]]:
    """Return the inverse of `put_nested`.

    Raises:
        LayoutError: a name has no key.
    """
    nested: dict[str, dict[str, Tensor]] = {}
    for name, tensor in take(flat, section).items():
        key, slash, parameter = name.rpartition("/")
        if not slash:
            raise LayoutError(f"Tensor {section}/{name!r} has no key; expected {section}/KEY/NAME.")
        nested.setdefault(key, {})[parameter] = tensor
    return nested


def put_list(section: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return tensors numbered under a section."""
    return {f"{section}/{i}": tensor for i, tensor in enumerate(tensors)}


def take_list(flat: Flat, section: str) -> tuple[Tensor, ...]:
    """Return the inverse of `put_list`.

    Raises:
        LayoutError: the numbers are not 0, 1, 2, ...
    """
    numbered = take(flat, section)
    if set(numbered) != {str(i) for i in range(len(numbered))}:
        raise LayoutError(f"Section {section} is numbered {sorted(numbered)}; expected 0 to {len(numbered) - 1}.")
    return tuple(numbered[str(i)] for i in range(len(numbered)))


def put_filters(section: str, subset: FilterSubset | None) -> dict[str, Tensor]:
    """Return filters and their masks under a section; nothing for None."""
    if subset is None:
        return {}
    return put(f"{section}_filters", subset.values) | put(f"{section}_masks", subset.masks)


def take_filters(flat: Flat, section: str) -> FilterSubset | None:
    """Return the inverse of `put_filters`."""
    masks = take(flat, f"{section}_masks")
    return FilterSubset(take(flat, f"{section}_filters"), masks) if masks else None


def storable(flat: Flat) -> dict[str, Tensor]:
    """Return contiguous tensors in main memory of which no two share it, as the safetensors format demands."""
    seen: set[int] = set()
    result = {}
    for name, tensor in flat.items():
        own = tensor.detach().cpu().contiguous()
        result[name] = own.clone() if own.untyped_storage().data_ptr() in seen else own
        seen.add(own.untyped_storage().data_ptr())
    return result


def sections(flat: Flat) -> Iterator[str]:
    """Yield the first part of every name, once each, in order."""
    yield from dict.fromkeys(name.split("/", 1)[0] for name in flat)
