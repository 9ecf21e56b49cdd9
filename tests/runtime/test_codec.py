"""A codec in a whole run: what it costs in bits of the result, what it saves, what a resumed run makes of it."""

from __future__ import annotations

from pathlib import Path

from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.runtime.small_federation import UNROUNDED, alike, run, small_federation


def bytes_sent(folder: Path) -> int:
    return sum(line["bytes_sent"] for line in RunFolder(folder).journal())


def test_a_lossless_codec_gives_the_weights_of_none_with_fewer_bytes(datasets, tmp_path):
    weights = run(small_federation(method=UNROUNDED), tmp_path / "none")
    assert alike(weights, run(small_federation(method={"codec": "lossless"}), tmp_path / "lossless"))
    assert bytes_sent(tmp_path / "lossless") < 0.95 * bytes_sent(tmp_path / "none")


def test_a_lossy_run_that_is_resumed_ends_with_the_same_sums_to_the_bit(datasets, tmp_path):
    federation, folder = small_federation(rounds=3, method={"codec": "int8"}), tmp_path / "run"
    weights = run(federation, folder)
    state = folder / "coordinator" / "round_00003.state"
    sums = state.read_bytes()
    state.unlink()
    (folder / "sites" / "a" / "round_00003.state").unlink()  # trains again; b and lead send again what they sent
    assert alike(weights, run(federation, folder))
    assert state.read_bytes() == sums
    assert not alike(weights, run(small_federation(rounds=3, method=UNROUNDED), tmp_path / "none"))
    assert bytes_sent(folder) < 0.4 * bytes_sent(tmp_path / "none")
