"""One site is added, gets new keys, or is revoked; the kits of all others stay as they are, to the byte."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from nnunet_fedmepd.cli import EXIT_ERROR, main
from nnunet_fedmepd.deployment.certificates import load_certificate, serial_number
from nnunet_fedmepd.deployment.checks import check_coordinator_files, check_site_files
from nnunet_fedmepd.deployment.kit import load_site_kit
from nnunet_fedmepd.deployment.nginx import proxy_configuration
from nnunet_fedmepd.deployment.requests import (
    Join,
    decode_request,
    encode_request,
    federation_digest,
)
from nnunet_fedmepd.deployment.site_keys import make_site_keys
from tests.deployment import made_kits

VILLAGE = """
[[site]]
name = "village"
dataset = 502
"""


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    return made_kits.make(tmp_path)


@pytest.fixture
def longer(tmp_path: Path) -> Path:
    """The federation file with one site more."""
    file = tmp_path / "longer.toml"
    file.write_text(made_kits.FEDERATION + VILLAGE)
    return file


def contents(folder: Path) -> dict[str, tuple[bytes, float]]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime) for file in files}


def let_in(kits: Path) -> str:
    """Return the configuration of the coordinator's proxy."""
    kit = made_kits.coordinator_kit(kits)
    return proxy_configuration(kit, {s.name: kit.node_key(s.name).read_bytes() for s in kit.federation.site})


def test_a_site_is_added_and_no_other_kit_changes(kits: Path, longer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = {site: contents(kits / "sites" / site) for site in ("university", "county")}
    assert main(["deploy", "add", str(kits), str(longer)]) == 0
    told = capsys.readouterr().out
    assert f"village: {kits / 'sites' / 'village'}, node key" in told
    assert f"fedmepd deploy up {kits / 'coordinator'}" in told
    assert {site: contents(kits / "sites" / site) for site in others} == others
    made_kits.write_site_toml(kits / "sites" / "village", kits)
    check_coordinator_files(made_kits.coordinator_kit(kits), lambda line: None)
    check_site_files(made_kits.site_kit(kits, "village"), lambda line: None)
    certificate = load_certificate(kits / "sites" / "village" / "client.crt")
    assert f'"CN=village {serial_number(certificate)}" 1;' in let_in(kits)
    assert "CN=village" in (kits / "coordinator" / "nginx.conf").read_text()


def test_old_and_new_sites_understand_the_coordinator_that_knows_one_site_more(kits: Path, longer: Path) -> None:
    assert main(["deploy", "add", str(kits), str(longer)]) == 0
    made_kits.write_site_toml(kits / "sites" / "village", kits)
    request = encode_request(Join(), federation_digest(made_kits.coordinator_kit(kits).federation))
    for site in ("university", "county", "village"):
        assert decode_request(request, federation_digest(made_kits.site_kit(kits, site).federation)) == Join()


def test_no_two_sites_have_a_port_in_common(kits: Path, longer: Path) -> None:
    assert main(["deploy", "add", str(kits), str(longer)]) == 0
    made_kits.write_site_toml(kits / "sites" / "village", kits)
    all_kits = [made_kits.site_kit(kits, site) for site in ("university", "county", "village")]
    assert len({port for kit in all_kits for port in (kit.sidecar_port, kit.supernode_port)}) == 6


def test_a_site_that_made_its_keys_itself_is_added(kits: Path, longer: Path, tmp_path: Path) -> None:
    request = make_site_keys("village", tmp_path / "village")
    command = ["deploy", "add", str(kits), str(longer), "--requests"]
    assert main([*command, str(request.parent)]) == 0
    assert not list((kits / "sites" / "village").glob("*.key"))
    shutil.copytree(kits / "sites" / "village", request.parent, dirs_exist_ok=True)
    made_kits.write_site_toml(request.parent, kits)
    check_site_files(load_site_kit(request.parent), lambda line: None)


REFUSED = {
    "no new site": ("", "lists no site that there is no kit for yet"),
    "another change": (VILLAGE.replace("502", "502\n[planning]\ngpu_memory_gb = 4.0"), "planning.gpu_memory_gb: 8.0"),
    "a site less": (None, "does not list county"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_more_than_add_a_site_is_refused_and_nothing_changes(
    kits: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more, told = REFUSED[case]
    file, before = tmp_path / "changed.toml", contents(kits)
    text = made_kits.FEDERATION if more is None else made_kits.FEDERATION + more
    file.write_text(text.replace('name = "county"', 'name = "village"') if more is None else text)
    assert main(["deploy", "add", str(kits), str(file)]) == EXIT_ERROR
    assert told in capsys.readouterr().err
    assert contents(kits) == before


def test_a_site_does_not_enter_a_run_that_it_did_not_plan_with(
    kits: Path, longer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = kits / "coordinator" / "run"
    run.mkdir()
    (run / "sites.json").write_text("{}")
    before = contents(kits)
    assert main(["deploy", "add", str(kits), str(longer)]) == EXIT_ERROR
    assert "holds a run that village did not plan with" in capsys.readouterr().err
    assert contents(kits) == before


@pytest.mark.parametrize("command", ["add", "renew"])
def test_without_the_authority_nothing_is_signed(
    kits: Path, longer: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.replace(kits / "authority", kits / "taken_away")
    before = contents(kits)
    assert main(["deploy", command, str(kits), {"add": str(longer), "renew": "county"}[command]]) == EXIT_ERROR
    assert "authority is not there" in capsys.readouterr().err
    assert contents(kits) == before


def test_renewed_keys_and_certificate_belong_together_and_the_old_ones_are_let_in_no_more(
    kits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    county, other, before = kits / "sites" / "county", contents(kits / "sites" / "university"), let_in(kits)
    (county / "state").mkdir()
    (county / "state" / "filters").write_text("personal")
    old = {name: file for name, (file, _) in contents(county).items()}
    assert main(["deploy", "renew", str(kits), "county"]) == 0
    assert "new client.crt, client.key, supernode.key, supernode.pub" in capsys.readouterr().out
    check_site_files(made_kits.site_kit(kits, "county"), lambda line: None)
    changed = {name for name, (file, _) in contents(county).items() if file != old[name]}
    assert changed == {"client.crt", "client.key", "supernode.key", "supernode.pub"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in county.glob("*.key")} == {0o600}
    assert contents(kits / "sites" / "university") == other
    now = [line for line in let_in(kits).splitlines() if "CN=county" in line]
    assert len(now) == 2
    assert not set(now) & set(before.splitlines())


def test_keys_that_a_site_had_before_are_not_taken_again(
    kits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_site_keys("county", tmp_path / "first").parent
    command = ["deploy", "renew", str(kits), "county", "--requests"]
    assert main([*command, str(first)]) == 0
    assert main([*command, str(first)]) == EXIT_ERROR
    assert "holds the keys that it had before" in capsys.readouterr().err
    assert main(["deploy", "revoke", str(kits / "coordinator"), "county"]) == 0
    assert main([*command, str(first)]) == EXIT_ERROR
    assert main([*command, str(make_site_keys("county", tmp_path / "second").parent)]) == 0
    assert f"CN=county {_serial(kits)}" in let_in(kits)


def _serial(kits: Path) -> str:
    return serial_number(load_certificate(made_kits.coordinator_kit(kits).certificate("county")))


def test_a_revoked_site_is_in_no_list_and_is_told_of(kits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coordinator, others = kits / "coordinator", contents(kits / "sites")
    shutil.rmtree(kits / "authority")  # it is not needed for that
    was, serial = made_kits.coordinator_kit(kits).node_key("county").read_bytes(), _serial(kits)
    for _ in range(2):
        assert main(["deploy", "revoke", str(coordinator), "county"]) == 0
        assert "Site county is locked out" in capsys.readouterr().out
    assert contents(kits / "sites") == others
    assert serial not in let_in(kits)
    assert made_kits.coordinator_kit(kits).node_key("county").read_bytes() != was
    told: list[str] = []
    check_coordinator_files(made_kits.coordinator_kit(kits), told.append)
    assert "Site county is revoked: it is not let in." in told
    assert main(["deploy", "status", str(coordinator)]) == 0
    assert "revoked" in capsys.readouterr().out


def test_a_site_that_nobody_knows_is_not_revoked(kits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "revoke", str(kits / "coordinator"), "village"]) == EXIT_ERROR
    assert "no site 'village'; expected one of university, county" in capsys.readouterr().err


def test_the_secret_of_an_engine_that_is_up_but_too_busy_to_answer_is_not_replaced(
    kits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = made_kits.coordinator_kit(kits)
    kit.engine_secret.parent.mkdir()
    kit.engine_secret.write_bytes(b"known to the engine that is up")
    (kit.folder / "flower.db").touch()
    with socket.create_server(("127.0.0.1", kit.superlink_port)) as engine:

        def hang_up() -> None:
            engine.accept()[0].close()

        Thread(target=hang_up, daemon=True).start()
        assert main(["deploy", "revoke", str(kit.folder), "county"]) == EXIT_ERROR
    assert f"Port {kit.superlink_port} (superlink_port" in capsys.readouterr().err
    assert kit.engine_secret.read_bytes() == b"known to the engine that is up"
