"""What a federation file says: one frozen model per table of the TOML file.

name, modalities, [aliases], rounds, seed      the federation
[[site]]                                       who takes part: dataset, modalities, lead or not
[planning]                                     planner, configuration, GPU memory, resolution of the reports
[method], [method.personalization]             what is exchanged, and how
[method.privacy]                               how updates are protected; without it they are not
[training]                                     overrides of `TrainingSettings`
[run]                                          devices, workers, limits
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nnunet_fedmepd.config.cross_checks import cross_mistakes, federation_vocabulary
from nnunet_fedmepd.config.mistakes import all_mistakes, listed
from nnunet_fedmepd.config.settings_tables import check_settings
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.config.variants import VARIANTS as VARIANTS  # noqa: PLC0414
from nnunet_fedmepd.config.variants import fill_in_variant, without_switches
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.maths.personalization import PersonalizationSettings, patience_for, warm_up_for
from nnunet_fedmepd.modalities import ModalityVocabulary


class Table(BaseModel):
    """A table of the federation file: frozen, without unknown keys, and with values of the stated type only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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
    modalities: tuple[str, ...] | None = Field(None, strict=False)
    lead: bool = False
    absent_rounds: tuple[int, ...] = Field((), strict=False)


class PlanningTable(Table):
    """How the sites plan together."""

    planner: str = "FedMEPDPlanner"
    configuration: str = "3d_fullres"
    gpu_memory_gb: float = Field(8.0, gt=0)
    steps_per_mm: int = Field(10_000, ge=1)
    size_steps: int = Field(10_000, ge=1)
    intensity_bins: int = Field(4096, ge=1)


class PrivacyTable(Table):
    """How sites protect their updates (see federation/privacy.py).

    Attributes:
        clipping_norm: C, to which the difference of an update from what was handed over is scaled down, all parameters
            in one norm.
        noise_multiplier: standard deviation of the Gaussian noise, over C.
        delta: at which epsilon is told.
        protect_leads: False sends leads' updates as they are, anchors included.
    """

    clipping_norm: float = Field(gt=0)
    noise_multiplier: float = Field(gt=0)
    delta: float = Field(1e-5, gt=0, lt=1)
    protect_leads: bool = True


class MethodTable(Table):
    """What is exchanged; the defaults are FedMEPD's, and `variant` sets several at once (see `VARIANTS`).

    Attributes:
        variant: fedmepd | fedmema | fedavg | local.
        exchange: False trains every site alone.
        encoder: one encoder per `modality`, or one `shared` over all channels, absent ones filled with zeros.
        decoder: `partial` (filter by filter), `shared` or `personal`.
        lead_role: what leads do: train after aggregation (`lead`), train like everybody else (`site`), or train not at
            all (`none`: the published ablation without the lead's data; there are no anchors then). `site` was worse
            (`evidence_small_variations` in tests/benchmarks/results).
        lead_share: lambda, what the lead keeps of its own decoder in aggregation.
        site_weights: a site counts `equal`ly (published) or by its `cases`, in encoders and in a wholly shared decoder.
        anchors: whether sites calibrate by the leads' anchors; without them one site was worse (the same table).
        n_anchors_per_class: K.
        calibration: residual | standardized | replace (published) | off (see networks/calibration.py); the second and
            third were worse (`evidence_small_choices`, `evidence_small_ablation` in tests/benchmarks/results/earlier).
        fine_tuning_share: share of the rounds, at the end, in which every site and lead trains on alone, from the last
            exchange.
        optimizer_state: `keep` moments over rounds or `reset` them, which was worse (`evidence_small_nnunet_loss`
            in tests/benchmarks/results/earlier).
        codec: how updates travel: `none` | `lossless` | `bf16` | `int8` (see federation/codecs.py); the last two round,
            and make up for it in the next round. `int8` cost Dice in one of two trials (`evidence_small_earlier`
            in tests/benchmarks/results/earlier).
        personalization: how filters become personal, overrides of `PersonalizationSettings`; where not given,
            warm_up_rounds is the published share of the rounds, and patience their cube root.
        privacy: how sites protect their updates; None: they do not.
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
    calibration: Literal["residual", "standardized", "replace", "off"] = "residual"
    fine_tuning_share: float = Field(0.0, ge=0, lt=1)
    optimizer_state: Literal["keep", "reset"] = "keep"
    codec: Literal["none", "lossless", "bf16", "int8"] = "bf16"
    personalization: dict[str, Any] = {}
    privacy: PrivacyTable | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_variant(cls, table: Any) -> Any:
        return fill_in_variant(table) if isinstance(table, dict) else table

    @field_validator("personalization")
    @classmethod
    def _check_personalization(cls, table: dict[str, Any]) -> dict[str, Any]:
        check_settings(PersonalizationSettings, table)
        return table


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

    devices: tuple[str, ...] = Field((), strict=False)
    workers: int = Field(1, ge=1)
    share_devices: bool = False
    fold: Literal["all"] | int = "all"
    minimum_sites: int = Field(1, ge=1)
    maximum_norm: float | None = Field(None, gt=0)


class Federation(Table):
    """A whole federation file."""

    name: str
    modalities: tuple[str, ...] = Field(strict=False)
    aliases: dict[str, str] = {}
    rounds: int = Field(ge=1)
    epochs_per_round: int = Field(1, ge=1)
    seed: int = 12345
    site: tuple[SiteTable, ...] = Field(strict=False)
    planning: PlanningTable = PlanningTable()
    method: MethodTable = MethodTable()
    training: dict[str, Any] = {}
    run: RunTable = RunTable()

    @field_validator("training")
    @classmethod
    def _check_training(cls, table: dict[str, Any]) -> dict[str, Any]:
        check_settings(TrainingSettings, table, {"num_epochs": "it is rounds * epochs_per_round"})
        return table

    @model_validator(mode="after")
    def _check_whole(self) -> Federation:
        if mistakes := cross_mistakes(self.model_dump()):
            raise ValueError("\n".join(mistakes))
        return self

    @property
    def vocabulary(self) -> ModalityVocabulary:
        """The canonical modalities and their other names."""
        return federation_vocabulary(self.modalities, self.aliases)

    @property
    def leads(self) -> tuple[SiteTable, ...]:
        """The sites that lead."""
        return tuple(site for site in self.site if site.lead)

    @property
    def personalization(self) -> PersonalizationSettings:
        """How filters become personal."""
        defaults = PersonalizationSettings(patience=patience_for(self.rounds), warm_up_rounds=warm_up_for(self.rounds))
        return replace(defaults, **self.method.personalization)

    def site_named(self, name: str) -> SiteTable:
        """Return a site by its name.

        Raises:
            ConfigurationError: there is none.
        """
        for site in self.site:
            if site.name == name:
                return site
        raise ConfigurationError(f"There is no site {name!r}; expected one of {', '.join(s.name for s in self.site)}.")

    def exchanges_in(self, round_number: int) -> bool:
        """Return whether anything is exchanged in a round, counted from 1."""
        fine_tuning_rounds = round(self.rounds * self.method.fine_tuning_share)
        return self.method.exchange and round_number <= self.rounds - fine_tuning_rounds

    def updates_of(self, name: str) -> int:
        """Return in how many rounds a site sends an update.

        Raises:
            ConfigurationError: there is no such site.
        """
        site = self.site_named(name)
        if site.lead and self.method.lead_role == "none":
            return 0
        present = set(range(1, self.rounds + 1)) - set(site.absent_rounds)
        return sum(self.exchanges_in(number) for number in present)

    def privacy_of(self, name: str) -> PrivacyTable | None:
        """Return how a site protects its updates; None where it does not, or sends none.

        Raises:
            ConfigurationError: there is no such site.
        """
        privacy, leads = self.method.privacy, self.site_named(name).lead and self.method.lead_role == "lead"
        if privacy is None or not self.method.exchange or (leads and not privacy.protect_leads):
            return None
        return privacy

    def training_settings(self, planned: TrainingSettings) -> TrainingSettings:
        """Return the training settings of the plans with those of this file in their place."""
        epochs = self.rounds * self.epochs_per_round
        return replace(planned, **{**self.training, "num_epochs": epochs})

    def as_variant(self, variant: str) -> Federation:
        """Return the same federation with a variant of the method (see `variant_file`).

        Raises:
            ConfigurationError: the variant cannot be run with these sites.
        """
        return self._changed(f"variant {variant}", **self.variant_file(variant))

    def variant_file(self, variant: str) -> dict[str, Any]:
        """Return the file of the same federation with a variant of the method, before it is checked.

        All switches that any variant sets are the variant's own, but for the file's own variant, which stays as the
        file has it. Anchors stay off where leads are protected.
        """
        method = self.method.model_dump()
        if variant != self.method.variant:
            method = {"variant": variant, **without_switches(method)}
        if self.method.privacy is not None and self.method.privacy.protect_leads:
            method["anchors"] = False
        return {**self.model_dump(), "name": f"{self.name}_{variant}", "method": method}

    def shortened(self, rounds: int) -> Federation:
        """Return the same federation with another number of rounds, to try it.

        Raises:
            ConfigurationError: no such number, or a site is said to be absent in a later round.
        """
        return self._changed(f"{rounds} rounds", name=f"{self.name}_{rounds}_rounds", rounds=rounds)

    def on(self, devices: Sequence[str] | None, workers: int | None) -> Federation:
        """Return the same federation on other devices, or with another number of workers; None leaves the file's.

        Raises:
            ConfigurationError: no such device, or workers would share a GPU unasked.
        """
        changes: dict[str, Any] = {}
        if devices is not None:
            changes["devices"] = list(devices)
        if workers is not None:
            changes["workers"] = workers
        return self._changed("the choice of devices and workers", run={**self.run.model_dump(), **changes})

    def _changed(self, source: str, **changes: Any) -> Federation:
        file = {**self.model_dump(), **changes}
        try:
            return Federation.model_validate(file)
        except ValidationError as error:
            raise listed(source, all_mistakes(error, file, Federation)) from None
