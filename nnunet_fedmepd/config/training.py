"""How the trainer trains: settings in the plans file, each of which an environment variable overrides."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from nnunet_fedmepd.config.settings_tables import TYPE_NAMES, check_settings
from nnunet_fedmepd.errors import ConfigurationError

ENVIRONMENT_PREFIX = "FEDMEPD_"
OPTIMIZERS = ("sgd", "adam", "adamw")
LOSSES = ("annealed", "weighted", "nnunet", "published")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of `FedMEPDTrainer`, kept in the plans file under `fedmepd.training`.

    The environment variable `FEDMEPD_<NAME IN CAPITALS>`, for example `FEDMEPD_NUM_EPOCHS=50`, overrides one of them
    for a single run.

    Attributes:
        num_epochs: epochs of a training.
        num_iterations_per_epoch: training steps an epoch.
        num_val_iterations_per_epoch: validation steps an epoch.
        save_every: epochs between two `checkpoint_latest.pth`.
        plot_every: epochs between two `progress.png`, which takes about a second to draw.
        optimizer: `adamw`, `adam` (Liu et al.'s rate) or `sgd` (nnU-Net's: Nesterov momentum 0.99). The last two were
            too slow for 600 steps (tests/benchmarks/results: `earlier/evidence_small_choices` and
            `evidence_small_variations`).
        initial_lr: learning rate at the start; it falls polynomially. 0 means the optimizer's default: 1e-2 for sgd,
            2e-4 for adam (Liu et al.), 1e-3 for adamw.
        gradient_norm: gradients are clipped to it. 0 means the optimizer's default: 12 for sgd (nnU-Net's), 1 for the
            others, whose first steps would otherwise be ruled by a few large gradients.
        weight_decay: decoupled from the gradient but in sgd; never applied to weights of absent modalities.
        loss: `weighted` (nnU-Net's Dice + cross entropy weighted by class frequency, scales weighted as in nnU-Net),
            `annealed` (as `weighted` in the first epoch; the weights' exponent falls linearly to 0, so that it ends as
            nnU-Net's; better than `weighted`: tests/benchmarks/results, `evidence_small_box`), `nnunet` (without the
            weights) or `published` (as `weighted`, all terms weigh 1).
        region_weight: weight of the region maps' loss, all scales together (not in `published`).
        auxiliary_weight: weight of the auxiliary decoder's loss, mean of the owned modalities (not in `published`).
        anchor_momentum: weight of the old anchor when a lead's anchors move; 0 means that the half-life is the
            published share of the run (published: 0.999 over 1,000 rounds; over 24 rounds, where anchors then stay
            as they began, no worse: tests/benchmarks/results, `evidence_small_momentum`).
        modality_dropout: probability that a training sample keeps a random subset of its modalities only.
        absence_imitation: where scans are missing, probability that the samples of a batch also lose what another of
            them lacks, so that which scans a case has does not tell which case it is. It helped where the absences
            are, and not in the mean of sites (tests/benchmarks/results, `evidence_missing`).
        cpu_bf16: on a CPU, run the network in bfloat16 (weights, loss, optimizer stay in float32): about 1.6 times as
            fast where the processor has AMX or AVX-512-BF16. On a GPU nnU-Net's float16 is used.
        final_validation: predict and score the validation cases after training, as nnU-Net does.
        seed: of clustering and modality dropout.
    """

    num_epochs: int = 1000
    num_iterations_per_epoch: int = 250
    num_val_iterations_per_epoch: int = 50
    save_every: int = 50
    plot_every: int = 1
    optimizer: str = "adamw"
    initial_lr: float = 0.0
    gradient_norm: float = 0.0
    weight_decay: float = 3e-5
    loss: str = "annealed"
    region_weight: float = 0.3
    auxiliary_weight: float = 0.2
    anchor_momentum: float = 0.0
    modality_dropout: float = 0.0
    absence_imitation: float = 0.0
    cpu_bf16: bool = False
    final_validation: bool = True
    seed: int = 12345

    def __post_init__(self) -> None:
        counts = ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "save_every", "plot_every")
        for name in counts:
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("initial_lr", "gradient_norm", "weight_decay", "region_weight", "auxiliary_weight"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("anchor_momentum", 0 <= self.anchor_momentum <= 1, "between 0 and 1")
        self._require("modality_dropout", 0 <= self.modality_dropout <= 1, "between 0 and 1")
        self._require("absence_imitation", 0 <= self.absence_imitation <= 1, "between 0 and 1")
        self._require("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        self._require("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigurationError(
                f"Training setting {name} is {getattr(self, name)!r}; expected {expected}. Change it in the plans file "
                f"(fedmepd.training.{name}) or in {ENVIRONMENT_PREFIX}{name.upper()}."
            )

    @property
    def learning_rate(self) -> float:
        """The learning rate at the start, with the optimizer's default filled in."""
        return self.initial_lr or {"sgd": 1e-2, "adam": 2e-4, "adamw": 1e-3}[self.optimizer]

    @property
    def largest_gradient_norm(self) -> float:
        """What gradients are clipped to, with the optimizer's default filled in."""
        return self.gradient_norm or (12.0 if self.optimizer == "sgd" else 1.0)

    @classmethod
    def from_plans(cls, plans: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> TrainingSettings:
        """Return the settings of a plans file, overridden by environment variables.

        Raises:
            ConfigurationError: an unknown name, in the plans or in an environment variable, or a value that cannot be
                used.
        """
        written = plans.get("fedmepd", {}).get("training", {})
        try:
            check_settings(cls, written)
        except ConfigurationError as error:
            mistakes = str(error).replace("\n", "\n  ")
            raise ConfigurationError(
                f"fedmepd.training in the plans {plans.get('plans_name')!r} of {plans.get('dataset_name')} cannot be "
                f"used:\n  {mistakes}\nCorrect it in the plans file; the settings are {', '.join(_types())}."
            ) from None
        given = dict(written)
        for variable in overriding_variables(environment):
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            given[name] = _parse(name, environment[variable])
        return cls(**given)


def overriding_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the environment variables that would override a training setting.

    Raises:
        ConfigurationError: a variable looks as if it should, but there is no such setting.
    """
    prefix = ENVIRONMENT_PREFIX
    names = [variable.removeprefix(prefix) for variable in environment if variable.startswith(prefix)]
    known = [name.upper() for name in _types()]
    for name in names:
        if name not in known and (meant := _similar(name, known)):
            raise ConfigurationError(
                f"The environment variable {prefix}{name} sets nothing; did you mean "
                f"{' or '.join(prefix + other for other in meant)}? Rename or unset it."
            )
    return [prefix + name for name in known if name in names]


def _types() -> dict[str, type]:
    return {field.name: type(field.default) for field in fields(TrainingSettings)}


def _similar(name: str, known: list[str]) -> list[str]:
    """Return the name that is spelled nearly alike, else all that share a word."""
    words = set(name.split("_"))
    return get_close_matches(name, known, 1) or [other for other in known if words & set(other.split("_"))]


def _parse(name: str, text: str) -> Any:
    kind, switches = _types()[name], {"0": False, "false": False, "1": True, "true": True}
    try:
        value = switches[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        value = math.nan
    if kind is not str and not math.isfinite(value):
        variable = ENVIRONMENT_PREFIX + name.upper()
        raise ConfigurationError(f"{variable} is {text!r}; expected {TYPE_NAMES[kind]}. Correct or unset it.")
    return value
