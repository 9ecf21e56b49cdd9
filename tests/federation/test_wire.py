"""Messages survive the wire as they are; anything else is refused, in bounded memory."""

from __future__ import annotations

import json
import pickle

import pytest
import safetensors.torch
import torch

from nnunet_fedmepd.federation.coordinator import Round
from nnunet_fedmepd.federation.messages import LeadUpdate, SiteUpdate
from nnunet_fedmepd.federation.wire import MessageError, decode, encode, manifest, tensors_of
from tests.federation.tiny_federation import an_update, by, rules, run_round, site, some_anchors, start

LIMIT = 10**6


def every_message():
    own, lead = site("a", ("T1",), by(0.1)), site("lead", lead=True, anchors=some_anchors())
    state = run_round(run_round(start(), [own, lead]), [own, lead])
    return [own.sent[-1], lead.sent[-1], own.handed[-1], Round(state, [own.participant], rules()).hand_over("a")]


@pytest.mark.parametrize("i", range(4), ids=["site update", "lead update", "hand-over", "fresh hand-over"])
def test_a_message_comes_out_as_it_went_in(i):
    message = every_message()[i]
    received = decode(encode(message), LIMIT)
    assert type(received) is type(message)
    before, after = tensors_of(message), tensors_of(received)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    scalars = {name: value for name, value in vars(message).items() if isinstance(value, (int, str))}
    assert {name: getattr(received, name) for name in scalars} == scalars


def test_a_modality_may_have_a_slash_in_its_name():
    update = an_update()
    renamed = SiteUpdate(**{**vars(update), "encoders": {"T1/gd": update.encoders["T1"]}})
    assert list(decode(encode(renamed), LIMIT).encoders) == ["T1/gd"]


def test_the_manifest_lists_every_array_that_leaves_a_site_and_nothing_else_leaves():
    update = an_update()
    rows = {row.name: (row.dtype, row.shape, row.n_bytes) for row in manifest(update)}
    assert rows == {
        "encoder/T1/encoders.T1.weight": ("float32", (2, 3), 24),
        "decoder_filters/decoder.conv.weight": ("float32", (4, 3), 48),
        "decoder_filters/decoder.conv.bias": ("float32", (4,), 16),
        "decoder_masks/decoder.conv": ("bool", (4,), 4),
        "importance/decoder.conv": ("float32", (4,), 16),
    }
    data = encode(update)
    length = int.from_bytes(data[:8], "little")
    written = json.loads(data[8 : 8 + length])
    names = set(written) - {"__metadata__"}
    assert names == set(rows)
    said = json.loads(written["__metadata__"]["fedmepd"])
    assert said == {"kind": "SiteUpdate", "run_id": "run-1", "site": "a", "round_number": 1, "n_cases": 10}


def other_header(**changes) -> bytes:
    header = {"kind": "SiteUpdate", "run_id": "run-1", "site": "a", "round_number": 1, "n_cases": 10, **changes}
    return safetensors.torch.save(tensors_of(an_update()), {"fedmepd": json.dumps(header)})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100,
        bytes(range(256)) * 50,
        pickle.dumps({"a": 1}),
        safetensors.torch.save({"x": torch.zeros(3)}),
        safetensors.torch.save({"x": torch.zeros(3)}, {"fedmepd": "no json"}),
        other_header(kind="Rumour"),
        other_header(round_number="1"),
        other_header(round_number=True),
        other_header(n_cases=1.5),
        other_header(surprise=1),
        (2**62).to_bytes(8, "little") + b"{}",
        encode(an_update())[:-1],
        encode(an_update()) + b"x",
    ],
    ids=[
        *("empty", "zeros", "random bytes", "pickle", "foreign safetensors", "header that is no JSON", "unknown kind"),
        *("text for a number", "truth for a number", "fraction for a count", "extra field", "10 EB header"),
        *("cut off", "something behind"),
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(MessageError):
        decode(data, LIMIT)


def test_a_message_beyond_the_limit_is_refused_before_it_is_read():
    with pytest.raises(MessageError, match="has 2000000 bytes; at most 1000000"):
        decode(b"x" * 2_000_000, LIMIT)


def test_a_section_that_does_not_belong_is_refused():
    header = {"kind": "SiteUpdate", "run_id": "r", "site": "a", "round_number": 1, "n_cases": 10}
    data = safetensors.torch.save({"images/case1": torch.zeros(3)}, {"fedmepd": json.dumps(header)})
    with pytest.raises(MessageError, match="unknown sections \\['images'\\]"):
        decode(data, LIMIT)


def test_a_lead_sends_no_masks_and_the_whole_decoder():
    lead = next(message for message in every_message() if isinstance(message, LeadUpdate))
    sections = {row.name.split("/")[0] for row in manifest(lead)}
    assert sections == {"encoder", "decoder", "anchors"}
