"""What crosses the border between coordinator and site: typed requests and replies, bounded and checked.

    magic, length of the header, header (JSON), body

The header names the kind, the federation and, in a reply, the request that it answers; the body is a message of
`federation.wire`, or nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.maths.planning_reports import FirstReport, PlanningRequest, SecondReport
from nnunet_fedmepd.nnunet_plugin.joint_planning import SiteTerms

MAGIC = b"FedMEPDr"
HEADER_LIMIT = 64 * 2**20  # bytes; plans and histograms of a large federation are far below
_PREFIX = len(MAGIC) + 8
_SHORT = 16  # hexadecimal digits


class ExchangeError(FedMEPDError):
    """Bytes are no request, or no reply to the request that was sent."""


@dataclass(frozen=True)
class Join:
    """Asks who a site is, before anything else."""


@dataclass(frozen=True)
class ReportFirst:
    """Asks for phase 1 of planning together."""


@dataclass(frozen=True)
class ReportSecond:
    """Asks for phase 2 of planning together."""

    announced: PlanningRequest


@dataclass(frozen=True)
class Adopt:
    """Hands over the pooled plans, for the site to preprocess its cases by."""

    plans: dict[str, Any]


@dataclass(frozen=True)
class TakeTurn:
    """Asks for a site's turn; the body is its hand-over, or empty where nothing is exchanged.

    Attributes:
        run_id: of the federated run.
        round_number: counted from 1.
        plans: digest of the plans that the site joined with.
    """

    run_id: str
    round_number: int
    plans: str
    body: bytes = b""


@dataclass(frozen=True)
class WriteModel:
    """Asks a site to write its final model; the body holds the federation's anchors, or is empty."""

    run_id: str
    plans: str
    body: bytes = b""


@dataclass(frozen=True)
class End:
    """Tells a site that the federation is done."""


@dataclass(frozen=True)
class PlannedNetwork:
    """What a site's plans say about the network.

    Attributes:
        digest: SHA-256 of the site's plans file.
        architecture: of the plans' configuration, modalities left out.
        common: SHA-256s of the parts of the plans that are the same at all sites.
        channels: modality -> SHA-256 of what is the same at all sites that own it.
    """

    digest: str
    architecture: dict[str, Any]
    common: dict[str, str]
    channels: dict[str, str]


@dataclass(frozen=True)
class Joined:
    """Who a site is.

    Attributes:
        version: of the package there.
        terms: modalities and labels.
        planned: None while the site's data are not planned and preprocessed.
    """

    version: str
    terms: SiteTerms
    planned: PlannedNetwork | None


@dataclass(frozen=True)
class Adopted:
    """A site took the pooled plans over.

    Attributes:
        planned: by them.
        plans_written: whether they were new.
        n_preprocessed: cases that had to be preprocessed.
    """

    planned: PlannedNetwork
    plans_written: bool
    n_preprocessed: int


@dataclass(frozen=True)
class TurnTaken:
    """A site took its turn; the body is its update, or empty where nothing is exchanged.

    Attributes:
        was_done: whether the round had been trained before.
        train_loss, pseudo_dice, seconds, filters, shared_filters: see `runtime.site_worker.TurnResult`.
        personal, agreement: by decoder layer, see `runtime.layer_report`.
    """

    was_done: bool
    train_loss: float
    pseudo_dice: float
    seconds: float
    filters: int
    shared_filters: int
    personal: tuple[int, ...] | None = None
    agreement: tuple[float | None, ...] | None = None
    body: bytes = b""

    @property
    def report(self) -> dict[str, Any]:
        """What goes into the journal."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("was_done", "body")}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}


@dataclass(frozen=True)
class ModelWritten:
    """A site wrote its final model."""


@dataclass(frozen=True)
class Ended:
    """A site knows that the federation is done."""


@dataclass(frozen=True)
class Failed:
    """A site could not do what was asked. What went wrong with its data stays at the site.

    Attributes:
        error: name of the kind of error.
        told: what the site says about the request; empty where that would say something about its data.
    """

    error: str
    told: str = ""


Request = Join | ReportFirst | ReportSecond | Adopt | TakeTurn | WriteModel | End
Reply = Joined | FirstReport | SecondReport | Adopted | TurnTaken | ModelWritten | Ended | Failed
REQUESTS: dict[str, type] = {kind.__name__: kind for kind in get_args(Request)}
REPLIES: dict[str, type] = {kind.__name__: kind for kind in get_args(Reply)}
_Kind = TypeVar("_Kind")


def federation_digest(federation: Federation) -> str:
    """Return by what coordinator and sites know that they read the same federation file; see `is_same_federation`.

    Where it runs is not part of it: devices, workers, and what a site calls its dataset. It is one digest of what all
    have in common, and for each site one of its name and one of what is said of it.
    """
    content = federation.model_dump(mode="json", exclude={"run": {"devices", "workers", "share_devices"}})
    words = [f"{_digest(site.pop('name'))[:_SHORT]}:{_said_of(site)}" for site in content.pop("site")]
    return " ".join([_digest(content), *words])


def is_same_federation(one: str, other: str) -> bool:
    """Return whether two digests are of one federation, one of which may list sites that were added later."""
    (common, *sites), (other_common, *other_sites) = one.split(" "), other.split(" ")
    said = dict(site.partition(":")[::2] for site in sites)
    others = (site.partition(":")[::2] for site in other_sites)
    return common == other_common and all(said.get(name, text) == text for name, text in others)


def _said_of(site: dict[str, Any]) -> str:
    return _digest({name: value for name, value in site.items() if name != "dataset"})[:_SHORT]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def encode_request(request: Request, federation: str) -> bytes:
    """Return a request as bytes.

    Args:
        request: to encode.
        federation: digest of the federation file.
    """
    return _encode(request, {"federation": federation})


def decode_request(data: bytes, federation: str) -> Request:
    """Return the request in bytes.

    Raises:
        ExchangeError: no request, or one of another federation.
    """
    header, body = _split(data)
    _check_federation(header, federation, "the federation file of this site is not the coordinator's")
    return _build(header, body, REQUESTS)


def encode_reply(reply: Reply, federation: str, key: str) -> bytes:
    """Return a reply as bytes.

    Args:
        reply: to encode.
        federation: digest of the federation file.
        key: of the request that it answers.
    """
    return _encode(reply, {"federation": federation, "answers": key})


def decode_reply(data: bytes, federation: str, key: str, kind: type[_Kind]) -> _Kind:
    """Return the reply in bytes from a site.

    Args:
        data: from a stranger.
        federation: digest of the federation file.
        key: of the request that was sent.
        kind: of reply that is expected.

    Raises:
        ExchangeError: no reply, one to another request or of another kind, or the site says that it failed.
    """
    header, body = _split(data)
    _check_federation(header, federation, "it belongs to another federation")
    if header.get("answers") != key:
        raise ExchangeError("it answers another request, of an earlier round or another run")
    reply = _build(header, body, REPLIES)
    if isinstance(reply, Failed):
        raise SiteFailedError(reply)
    if not isinstance(reply, kind):
        raise ExchangeError(f"it is a {type(reply).__name__}; expected a {kind.__name__}")
    return reply


class SiteFailedError(ExchangeError):
    """A site answered that it failed."""

    def __init__(self, failed: Failed) -> None:
        told = failed.told[:500] or "what went wrong is in the site's own log"
        super().__init__(f"the site failed with a {failed.error[:100]}: {told}")


def _encode(message: Any, header: Mapping[str, str]) -> bytes:
    values = asdict(message)
    body = values.pop("body", b"")
    text = json.dumps({"kind": type(message).__name__, **header, "values": values}, separators=(",", ":")).encode()
    return b"".join((MAGIC, len(text).to_bytes(8, "little"), text, body))


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[len(MAGIC) : _PREFIX], "little")
    if data[: len(MAGIC)] != MAGIC or not 0 < length <= min(HEADER_LIMIT, len(data) - _PREFIX):
        raise ExchangeError("it is no message of this protocol")
    try:
        header = json.loads(data[_PREFIX : _PREFIX + length])
    except (ValueError, RecursionError):
        raise ExchangeError("its header is no JSON") from None
    if not isinstance(header, dict) or not isinstance(header.get("values"), dict):
        raise ExchangeError("its header is none of this protocol")
    return header, data[_PREFIX + length :]


def _check_federation(header: Mapping[str, Any], own: str, otherwise: str) -> None:
    found = header.get("federation")
    if not isinstance(found, str) or not is_same_federation(own, found):
        raise ExchangeError(otherwise)


def _build(header: Mapping[str, Any], body: bytes, kinds: Mapping[str, type]) -> Any:
    kind = kinds.get(str(header.get("kind")))
    if kind is None:
        raise ExchangeError(f"it is a {str(header.get('kind'))[:100]!r}; expected one of {', '.join(kinds)}")
    names = {f.name for f in fields(kind)}
    takes_body = "body" in names
    if unknown := sorted(set(header["values"]) - (names - {"body"})):
        raise ExchangeError(f"a {kind.__name__} says something impossible: {unknown[0][:100]}: unknown")
    if body and not takes_body:
        raise ExchangeError(f"a {kind.__name__} has no body; found {len(body)} bytes")
    try:
        made: Any = TypeAdapter(kind).validate_json(json.dumps(header["values"]), strict=True)
    except (ValidationError, FedMEPDError) as error:
        raise ExchangeError(f"a {kind.__name__} says something impossible: {_first_line(error)}") from None
    if takes_body:
        object.__setattr__(made, "body", body)
    return made


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300]
    return str(error).splitlines()[0][:300]
