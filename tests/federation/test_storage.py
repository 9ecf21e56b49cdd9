"""State on disk is what was written, or an error that says what to do."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from nnunet_fedmepd.federation.state import flatten_coordinator, flatten_site, restore_coordinator, restore_site
from nnunet_fedmepd.federation.storage import StateFileError, load_state, save_state
from tests.federation.tiny_federation import by, model, run_round, site, some_anchors, start

WEIGHT = "decoder.conv.weight"


def saved(file: Path) -> Path:
    save_state(file, {"a/b": torch.arange(100.0), "c": torch.ones(3, dtype=torch.bool)}, {"round": 3})
    return file


def test_tensors_and_header_come_back(tmp_path):
    tensors, header = load_state(saved(tmp_path / "round.state"))
    assert header == {"round": 3}
    assert torch.equal(tensors["a/b"], torch.arange(100.0))
    assert tensors["c"].dtype == torch.bool


def test_tensors_that_share_memory_come_back_each_by_itself(tmp_path):
    shared = torch.ones(4)
    save_state(tmp_path / "s", {"a": shared, "b": shared, "c": shared[1:]}, {})
    tensors, _ = load_state(tmp_path / "s")
    assert {name: tensor.numel() for name, tensor in tensors.items()} == {"a": 4, "b": 4, "c": 3}


def test_any_changed_byte_is_noticed(tmp_path):
    good = saved(tmp_path / "round.state").read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 1
        (tmp_path / "bad").write_bytes(bytes(bad))
        with pytest.raises(StateFileError, match="is damaged"):
            load_state(tmp_path / "bad")


@pytest.mark.parametrize("length", [0, 1, 8, 20, 40, 100])
def test_a_file_that_was_cut_off_is_noticed(tmp_path, length):
    good = saved(tmp_path / "round.state").read_bytes()
    (tmp_path / "bad").write_bytes(good[:length])
    with pytest.raises(StateFileError, match=f"{length} bytes"):
        load_state(tmp_path / "bad")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StateFileError, match=r"nothing.state cannot be read: No such file"):
        load_state(tmp_path / "nothing.state")


def test_an_unwritable_folder_is_a_clear_error_and_the_old_state_stays(tmp_path):
    folder = tmp_path / "states"
    file = saved(folder / "round.state")
    before = file.read_bytes()
    (folder / f"round.state.{os.getpid()}.partial").mkdir()  # where the new content would go: holds for root as well
    with pytest.raises(StateFileError, match=r"cannot be written: .*The last good state is kept"):
        save_state(file, {"a": torch.zeros(1)}, {})
    assert file.read_bytes() == before


def test_a_full_disk_is_a_clear_error_and_the_old_state_stays(tmp_path):
    script = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from nnunet_fedmepd.federation.storage import save_state\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "save_state(Path(sys.argv[1]), {'a': torch.zeros(10_000)}, {})\n"
    )
    file = saved(tmp_path / "round.state")
    before = file.read_bytes()
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=False)
    assert "StateFileError" in done.stderr
    assert "File too large" in done.stderr
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_process_killed_while_it_saves_leaves_a_whole_state(tmp_path):
    script = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from nnunet_fedmepd.federation.storage import save_state\n"
        "print('ready', flush=True)\n"
        "for i in range(10**6):\n"
        "    save_state(Path(sys.argv[1]), {'a': torch.full((300_000,), float(i))}, {'i': i})\n"
    )
    file, draw = tmp_path / "round.state", random.Random(1)
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", script, file], stdout=subprocess.PIPE, env=os.environ)
        process.stdout.readline()
        time.sleep(0.1 + draw.random() * 0.2)
        process.kill()
        process.wait()
        tensors, header = load_state(file)
        assert torch.equal(tensors["a"], torch.full((300_000,), float(header["i"])))


def test_a_coordinators_state_comes_back_and_goes_on_as_before(tmp_path):
    own, lead = site("a", training=by(0.1)), site("lead", training=by(0.2), lead=True, anchors=some_anchors())
    state = run_round(run_round(start(), [own, lead]), [own, lead])
    save_state(tmp_path / "c", *flatten_coordinator(state))
    restored = restore_coordinator(*load_state(tmp_path / "c"), model())
    twins = deepcopy([own, lead])
    there, here = run_round(state, [own, lead]), run_round(restored, twins)
    assert torch.equal(there.model.decoder[WEIGHT], here.model.decoder[WEIGHT])
    assert torch.equal(there.anchors.anchors[0], here.anchors.anchors[0])
    assert (there.n_cases, there.counted) == (here.n_cases, here.counted)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_sites_state_comes_back_and_goes_on_as_before(tmp_path, rounds):
    own, lead, state = site("a", training=by(-0.1)), site("lead", training=by(0.2), lead=True), start()
    for _ in range(rounds):
        state = run_round(state, [own, lead])
    save_state(tmp_path / "s", *flatten_site(own.state))
    twins = deepcopy([own, lead])
    twins[0].state = restore_site(*load_state(tmp_path / "s"))
    assert twins[0].state.round_number == rounds
    run_round(state, [own, lead])
    run_round(state, twins)
    assert torch.equal(own.masks()["decoder.conv"], twins[0].masks()["decoder.conv"])
    assert torch.equal(own.own[WEIGHT], twins[0].own[WEIGHT])
