"""A federation of plain tensors: two modalities, a decoder of four filters, training by a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nnunet_fedmepd.federation.admission import Limits
from nnunet_fedmepd.federation.coordinator import CoordinatorState, Round, Rules
from nnunet_fedmepd.federation.messages import Anchors, HandOver, SiteUpdate, Update
from nnunet_fedmepd.federation.roster import Model, Participant
from nnunet_fedmepd.federation.site import SiteRules, SiteState, begin, finish, lead_update, shared_masks
from nnunet_fedmepd.federation.wire import decode, encode
from nnunet_fedmepd.maths.parameters import FilterGroup
from nnunet_fedmepd.maths.personalization import PersonalizationSettings

RUN = "run-1"
GROUPS = (FilterGroup("decoder.conv", (("decoder.conv.weight", 0), ("decoder.conv.bias", 0)), 4),)
ENCODERS = {m: [f"encoders.{m}.weight"] for m in ("T1", "T2")}
ANCHOR_SHAPES = ((2, 2, 3),)
QUICK = PersonalizationSettings(patience=2, warm_up_rounds=0)

# (own parameters, round) -> parameters after training
Training = Callable[[dict[str, Tensor], int], dict[str, Tensor]]


def model(seed: int = 0) -> Model:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return Model(
        {modality: {name: draw(2, 3) for name in names} for modality, names in ENCODERS.items()},
        {"decoder.conv.weight": draw(4, 3), "decoder.conv.bias": draw(4)},
        GROUPS,
        ANCHOR_SHAPES,
    )


def by(amount: float) -> Training:
    """Return a training that adds an amount to every parameter."""
    return lambda parameters, _: {name: tensor + amount for name, tensor in parameters.items()}


def some_anchors(value: float = 1.0) -> Anchors:
    return Anchors((torch.full((2, 2, 3), value) + torch.arange(2.0)[:, None],), torch.ones(2, 2, dtype=torch.bool))


@dataclass
class Site:
    """A site that trains by a rule, and remembers what it was handed over and what it sent."""

    participant: Participant
    training: Training
    n_cases: int = 10
    personalization: PersonalizationSettings | None = QUICK
    anchors: Anchors | None = None
    state: SiteState = field(default_factory=SiteState)
    own: dict[str, Tensor] = field(default_factory=dict)
    handed: list[HandOver] = field(default_factory=list)
    sent: list[Update] = field(default_factory=list)

    @property
    def rules(self) -> SiteRules:
        lead = self.participant.is_lead
        return SiteRules(self.participant.name, self.n_cases, GROUPS, None if lead else self.personalization)

    def masks(self) -> dict[str, Tensor]:
        return shared_masks(self.state, GROUPS)

    def take_turn(self, hand_over: HandOver) -> Update:
        """Go through the bytes, as on a network."""
        received = decode(encode(hand_over), 10**7)
        assert isinstance(received, HandOver)
        self.handed.append(received)
        decoder = self.own or {name: torch.zeros_like(t) for name, t in model().decoder.items()}
        turn = begin(self.state, received, {name: decoder[name] for name in model().decoder}, self.rules)
        self.own = self.training(dict(turn.parameters), received.round_number)
        update, self.state = finish(turn, self.own, self.rules)
        message: Update = update
        if self.participant.is_lead:
            message = lead_update(received.round_number, RUN, self.own, self._encoders(), self.rules, self.anchors)
        self.sent.append(message)
        return message

    def _encoders(self) -> Mapping[str, list[str]]:
        return {modality: ENCODERS[modality] for modality in self.participant.modalities}


def site(name: str, modalities: tuple[str, ...] = ("T1", "T2"), training: Training | None = None, **changes) -> Site:
    return Site(Participant(name, modalities, changes.pop("lead", False)), training or by(0.0), **changes)


def rules(**changes) -> Rules:
    return Rules(**{"run_id": RUN, "limits": Limits(1000.0), **changes})


def run_round(
    state: CoordinatorState,
    sites: list[Site],
    rules_: Rules | None = None,
    order: Callable[[list[Site]], list[Site]] = list,
) -> CoordinatorState:
    """Run one round of the sites given, through bytes both ways."""
    current = Round(state, [s.participant for s in sites], rules_ or rules())
    for lead in (False, True):
        for own in order([s for s in sites if s.participant.is_lead == lead]):
            update = own.take_turn(current.hand_over(own.participant.name, own.masks()))
            received = decode(encode(update), 10**7)
            assert not isinstance(received, HandOver)
            current.add(received)
        if not lead:
            current.aggregate()
    return current.close()


def start() -> CoordinatorState:
    return CoordinatorState(0, model())


def an_update(**changes) -> SiteUpdate:
    """Return a valid update of a site `a` that owns T1, in round 1."""
    own = site("a", ("T1",), by(0.1))
    update = own.take_turn(Round(start(), [own.participant], rules()).hand_over("a"))
    assert isinstance(update, SiteUpdate)
    return SiteUpdate(**{**vars(update), **changes})
