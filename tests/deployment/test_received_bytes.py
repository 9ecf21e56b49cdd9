"""Bytes from a peer: a pickle that would execute something does not, wherever it is fed; keys are the owner's alone."""

from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="deployment needs the extra: pip install '.[deployment]'")

import nnunet_fedmepd
from nnunet_fedmepd.deployment.checks import check_site_files
from nnunet_fedmepd.deployment.requests import (
    MAGIC,
    ModelWritten,
    TakeTurn,
    decode_reply,
    decode_request,
    encode_request,
)
from nnunet_fedmepd.errors import ConfigurationError, FedMEPDError
from nnunet_fedmepd.federation import storage, wire
from tests.deployment import made_kits
from tests.deployment.security_table import SecurityTable

pytestmark = pytest.mark.deployment


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


READERS: dict[str, Callable[[bytes, Path], object]] = {
    "a request": lambda data, folder: decode_request(data, "digest"),
    "a reply": lambda data, folder: decode_reply(data, "digest", "key", ModelWritten),
    "an update": lambda data, folder: wire.decode(data, 10**6),
    "what is in a request": lambda data, folder: wire.decode(_body_of_a_request(data), 10**6),
    "a state file": lambda data, folder: storage.load_state(_written(data, folder)),
}


def _written(data: bytes, folder: Path) -> Path:
    (folder / "file").write_bytes(data)
    return folder / "file"


def _body_of_a_request(data: bytes) -> bytes:
    request = decode_request(encode_request(TakeTurn("run", 1, "plans", data), "digest"), "digest")
    assert isinstance(request, TakeTurn)
    return request.body


@pytest.mark.parametrize("read", READERS)
def test_a_pickle_is_refused_and_does_nothing(read: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    made = tmp_path / "made"
    bomb = pickle.dumps(Bomb(made))
    for data in (bomb, storage.MAGIC + bomb, MAGIC + bomb, len(bomb).to_bytes(8, "little") + bomb):
        with pytest.raises(FedMEPDError):
            READERS[read](data, tmp_path)
        assert not made.exists()
    pickle.loads(bomb)  # the bomb is one
    assert made.is_dir()
    SecurityTable.of(request.config).add(f"a pickle as {read}", {"nothing is unpickled": "refused"}, "executes")


def test_no_module_that_reads_a_peers_bytes_can_unpickle() -> None:
    package = Path(nnunet_fedmepd.__file__).parent
    for file in sorted([*(package / "federation").rglob("*.py"), *(package / "deployment").rglob("*.py")]):
        tree = ast.parse(file.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not imported & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, file
        assert not called & {"torch.load", "np.load", "numpy.load", "eval", "exec"}, file


def test_a_key_that_others_can_read_keeps_a_site_from_starting(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kits = made_kits.make(tmp_path)
    check_site_files(made_kits.site_kit(kits, "county"), lambda line: None)
    for name in ("client.key", "supernode.key"):
        key = kits / "sites" / "county" / name
        assert key.stat().st_mode & 0o777 == 0o600
        key.chmod(0o644)
        with pytest.raises(ConfigurationError, match=f"{name} can be read or changed by others"):
            check_site_files(made_kits.site_kit(kits, "county"), lambda line: None)
        key.chmod(0o600)
    stopped_by = {"mode 600, checked at each start": "the site does not start"}
    SecurityTable.of(request.config).add("another user reads a key", stopped_by, "it can be read")
