"""What a federation file says: one frozen model per table of the TOML file.

name, modalities, [aliases], rounds, seed      the federation
[[site]]                                       who takes part: dataset, modalities, lead or not
[planning]                                     planner, configuration, GPU memory, resolution of the reports
[method], [method.personalization]             what is exchanged, and how
[training]                                     overrides of `TrainingSettings`
[run]                                          devices, workers, limits
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nnunet_fedmepd.maths.personalization import PersonalizationSettings


class Table(BaseModel):
    """A table of the federation file: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteTable(Table):
    """One site.

    Attributes:
        name: unique; letters, digits, `_`, `-` and `.`.
        dataset: its nnU-Net dataset, by number or full name.
        modalities: canonical names in the order of its channels; None takes them from dataset.json.
        lead: whether it owns every modality, trains after aggregation and collects anchors.
        absent_rounds: rounds, counted from 1, that it is known to miss: a site that joins in round 5 misses 1 to 4.
    """

    name: str
    dataset: int | str
    modalities: tuple[str, ...] | None = None
    lead: bool = False
    absent_rounds: tuple[int, ...] = ()


class PlanningTable(Table):
    """How the sites plan together."""

    planner: str = "FedMEPDPlanner"
    configuration: str = "3d_fullres"
    gpu_memory_gb: float = Field(8.0, gt=0)
    steps_per_mm: int = Field(10_000, ge=1)
    size_steps: int = Field(10_000, ge=1)
    intensity_bins: int = Field(4096, ge=1)


# What the named variants change; a switch that the file sets itself wins.
VARIANTS: dict[str, dict[str, Any]] = {
    "fedmepd": {},
    "fedmema": {"decoder": "personal"},
    "fedavg": {
        "encoder": "shared",
        "decoder": "shared",
        "lead_role": "site",
        "site_weights": "cases",
        "anchors": False,
    },
    "local": {"exchange": False, "lead_role": "site", "anchors": False},
}


class MethodTable(Table):
    """What is exchanged; the defaults are FedMEPD's, and `variant` sets several at once (see `VARIANTS`).

    Attributes:
        variant: fedmepd | fedmema | fedavg | local.
        exchange: False trains every site alone.
        encoder: one encoder per `modality`, or one `shared` over all channels, absent ones filled with zeros.
        decoder: `partial` (filter by filter), `shared` or `personal`.
        lead_role: what leads do: train after aggregation (`lead`), train like everybody else (`site`), or train not at
            all (`none`: the published ablation without the lead's data; there are no anchors then).
        lead_share: lambda, what the lead keeps of its own decoder in aggregation.
        site_weights: a site counts `equal`ly (published) or by its `cases`, in encoders and in a wholly shared decoder.
        anchors: whether sites calibrate by the leads' anchors.
        n_anchors_per_class: K.
        calibration: residual | replace (published) | off.
        optimizer_state: `keep` moments over rounds or `reset` them.
        personalization: how filters become personal; warm_up_rounds None is the published share of the rounds.
    """

    variant: Literal["fedmepd", "fedmema", "fedavg", "local"] = "fedmepd"
    exchange: bool = True
    encoder: Literal["modality", "shared"] = "modality"
    decoder: Literal["partial", "shared", "personal"] = "partial"
    lead_role: Literal["lead", "site", "none"] = "lead"
    lead_share: float = Field(0.3, ge=0, le=1)
    site_weights: Literal["equal", "cases"] = "equal"
    anchors: bool = True
    n_anchors_per_class: int = Field(4, ge=1)
    calibration: Literal["residual", "replace", "off"] = "residual"
    optimizer_state: Literal["keep", "reset"] = "keep"
    personalization: PersonalizationSettings = PersonalizationSettings()


class RunTable(Table):
    """Where and within which limits a federation runs.

    Attributes:
        devices: such as `cuda:0`, `cpu`; empty takes the first GPU, else the CPU.
        workers: sites that train at the same time; more than devices only if `share_devices`.
        share_devices: let several workers use one GPU.
        fold: nnU-Net's fold, `all` or 0 to 4.
        minimum_sites: updates needed to end a round.
        maximum_norm: bound of the norm of a site's update over that of what it was sent; None: unbounded.
    """

    devices: tuple[str, ...] = ()
    workers: int = Field(1, ge=1)
    share_devices: bool = False
    fold: Literal["all"] | int = "all"
    minimum_sites: int = Field(1, ge=1)
    maximum_norm: float | None = Field(None, gt=0)


class Federation(Table):
    """A whole federation file."""

    name: str
    modalities: tuple[str, ...]
    aliases: dict[str, str] = {}
    rounds: int = Field(ge=1)
    epochs_per_round: int = Field(1, ge=1)
    seed: int = 12345
    site: tuple[SiteTable, ...]
    planning: PlanningTable = PlanningTable()
    method: MethodTable = MethodTable()
    training: dict[str, int | float | bool | str] = {}
    run: RunTable = RunTable()
