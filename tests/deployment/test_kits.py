"""Kits: what is in them, who gets which key, and what is said when something is wrong with them."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="deployment needs the extra: pip install '.[deployment]'")

from cryptography import x509

from nnunet_fedmepd.deployment.certificates import (
    Authority,
    certificate_bytes,
    client_certificate,
    load_certificate,
    load_private_key,
    new_authority,
    new_key,
    write_private,
)
from nnunet_fedmepd.deployment.checks import check_coordinator_files, check_site_files, check_way
from nnunet_fedmepd.deployment.kit import load_coordinator_kit, load_site_kit
from nnunet_fedmepd.deployment.nginx import ACCESS_LOG, proxy_configuration, sidecar_configuration
from nnunet_fedmepd.deployment.processes import ProcessError, Processes, Program, id_file
from nnunet_fedmepd.deployment.site_keys import make_site_keys, read_request
from nnunet_fedmepd.deployment.status import contacts
from nnunet_fedmepd.deployment.systemd import unit
from nnunet_fedmepd.errors import ConfigurationError
from tests.deployment import made_kits
from tests.processes import is_there

SITES = ("university", "county")


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    return made_kits.make(tmp_path)


def silent(line: str) -> None:
    raise AssertionError(f"nothing was to be told: {line}")


# ---------------------------------------------------------------------------------------------------- what is in them


def test_private_keys_can_be_read_by_their_owner_only(kits: Path) -> None:
    private = list(kits.rglob("*.key"))
    assert len(private) == 2 + 1 + 2 * len(SITES)  # authorities, coordinator, sites
    assert {stat.S_IMODE(file.stat().st_mode) for file in private} == {0o600}
    folders = [kits / "authority", kits / "coordinator", *(kits / "sites" / site for site in SITES)]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_private_key_is_in_one_place(kits: Path) -> None:
    contents = [file.read_bytes() for file in kits.rglob("*.key")]
    assert len(set(contents)) == len(contents)
    others = [file.read_bytes() for file in kits.rglob("*") if file.is_file() and file.suffix != ".key"]
    assert not any(b"PRIVATE KEY" in content for content in others)


def test_kits_as_made_pass_all_checks(kits: Path) -> None:
    check_coordinator_files(made_kits.coordinator_kit(kits), lambda line: None)
    for site in SITES:
        check_site_files(made_kits.site_kit(kits, site), lambda line: None)


def test_no_authority_accepts_what_the_other_one_signed(kits: Path) -> None:
    authority = {name: load_certificate(kits / "authority" / f"{name}.crt") for name in ("ca", "client_ca")}
    server = load_certificate(kits / "coordinator" / "server.crt")
    client = load_certificate(kits / "sites" / "county" / "client.crt")
    server.verify_directly_issued_by(authority["ca"])
    client.verify_directly_issued_by(authority["client_ca"])
    for certificate, other in ((server, "client_ca"), (client, "ca")):
        with pytest.raises(ValueError, match="Issuer"):
            certificate.verify_directly_issued_by(authority[other])
    usage = client.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not usage.ca


def test_every_site_reads_the_same_federation_file(kits: Path) -> None:
    files = [kits / "coordinator" / "federation.toml", *(kits / "sites" / s / "federation.toml" for s in SITES)]
    assert {file.read_text() for file in files} == {made_kits.FEDERATION}


def test_kits_are_made_whole_or_not_at_all_and_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"university\.request cannot be read.*fedmepd site keys university"):
        made_kits.make(tmp_path, requests=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["glioma.toml"]
    kits = made_kits.make(tmp_path)
    before = (kits / "authority" / "ca.key").read_bytes()
    with pytest.raises(ConfigurationError, match="exists"):
        made_kits.make(tmp_path)
    assert (kits / "authority" / "ca.key").read_bytes() == before


# ------------------------------------------------------------------------------------- keys that never leave the site


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """Requests of both sites, whose private keys are in folders of their own."""
    folder = tmp_path / "requests"
    folder.mkdir()
    for site in SITES:
        shutil.copy(make_site_keys(site, tmp_path / "at" / site), folder)
    return folder


def test_a_site_that_made_its_keys_itself_gets_a_kit_that_fits_them(tmp_path: Path, requests: Path) -> None:
    kits = made_kits.make(tmp_path, requests)
    assert not list((kits / "sites").rglob("*.key"))
    own = tmp_path / "at" / "county"
    with pytest.raises(ConfigurationError, match=r"client\.key, supernode\.key missing.*fedmepd site keys"):
        check_site_files(made_kits.site_kit(kits, "county"), silent)
    shutil.copytree(kits / "sites" / "county", own, dirs_exist_ok=True)
    check_site_files(load_site_kit(own), lambda line: None)


def test_site_keys_are_not_replaced(tmp_path: Path, requests: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds client\.key and supernode\.key already"):
        make_site_keys("county", tmp_path / "at" / "county")


def test_a_request_is_taken_only_from_the_site_it_is_of(tmp_path: Path, requests: Path) -> None:
    shutil.copy(requests / "county.request", requests / "university.request")
    with pytest.raises(ConfigurationError, match="a request of site 'county'; expected one of site 'university'"):
        made_kits.make(tmp_path, requests)


def test_a_request_with_another_key_than_it_was_made_with_is_refused(requests: Path) -> None:
    file, other = requests / "county.request", requests / "university.request"
    signing, end, _ = file.read_bytes().partition(b"-----END CERTIFICATE REQUEST-----\n")
    file.write_bytes(signing + end + other.read_bytes().rpartition(b"-----\n")[2])
    with pytest.raises(ConfigurationError, match=r"county\.request is not what its keys signed"):
        read_request(file, "county")


# --------------------------------------------------------------------------------------------- what is told, and when


def replace_certificate(site: Path, days: int, authority: Path | None = None) -> None:
    """Give a site another certificate for its key: of the kits' own authority, or of a stranger's."""
    signer = new_authority("stranger") if authority is None else _authority(authority)
    key = load_certificate(site / "client.crt").public_key()
    (site / "client.crt").write_bytes(certificate_bytes(client_certificate(signer, key, site.name, days)))


def _authority(folder: Path) -> Authority:
    return Authority(load_private_key(folder / "client_ca.key"), load_certificate(folder / "client_ca.crt"))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "readable by others": (lambda site: (site / "client.key").chmod(0o640), r"mode 640.*chmod 600"),
    "node key readable by others": (lambda site: (site / "supernode.key").chmod(0o604), r"mode 604"),
    "missing": (lambda site: (site / "ca.crt").unlink(), r"no whole kit: ca\.crt missing"),
    "expired": (lambda site: replace_certificate(site, -1, site.parents[1] / "authority"), r"client\.crt expired on"),
    "signed by a stranger": (lambda site: replace_certificate(site, 30), r"was not signed by client_ca\.crt"),
    "another site's certificate": (
        lambda site: [shutil.copy2(site.parent / "university" / name, site) for name in ("client.crt", "client.key")],
        r"is of site 'university', but this is the kit of site 'county'",
    ),
    "another site's node key": (
        lambda site: shutil.copy2(site.parent / "university" / "supernode.key", site),
        r"supernode\.key does not belong to supernode\.pub",
    ),
    "no certificate": (lambda site: (site / "client.crt").write_text("?"), r"client\.crt is no certificate"),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_site_is_told_what_is_wrong_with_its_kit(kits: Path, spoiled: str) -> None:
    spoil, told = SPOILED[spoiled]
    spoil(kits / "sites" / "county")
    with pytest.raises(ConfigurationError, match=told):
        check_site_files(made_kits.site_kit(kits, "county"), lambda line: None)


def test_a_certificate_that_will_expire_is_told_in_time(kits: Path) -> None:
    told: list[str] = []
    replace_certificate(kits / "sites" / "county", 10, kits / "authority")
    check_site_files(made_kits.site_kit(kits, "county"), told.append)
    assert len(told) == 1
    assert "expires on" in told[0]


def test_a_coordinator_that_does_not_answer_is_told_with_its_address(kits: Path) -> None:
    kit = made_kits.site_kit(kits, "county")
    with pytest.raises(ConfigurationError, match=f"cannot be reached at 127.0.0.1:{kit.coordinator_port}.*firewall"):
        check_way(kit)


def test_mistakes_in_a_kits_files_are_named(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = kits / "sites" / "county"
    with pytest.raises(
        ConfigurationError, match=r"expected role = 'coordinator', found 'site'; it is for `fedmepd site`"
    ):
        load_coordinator_kit(site)
    with pytest.raises(ConfigurationError, match=r"is no kit: expected the file kit\.toml"):
        load_site_kit(kits)
    made_kits.write_site_toml(site, kits, device="gpu", datset="501")
    with pytest.raises(ConfigurationError, match=r"(?s)site\.toml has mistakes \(known keys: .*device.*datset"):
        load_site_kit(site)
    (site / "site.toml").write_text('nnunet_raw = ""')
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(ConfigurationError, match="leaves nnunet_raw empty, and the environment variable nnUNet_raw"):
        load_site_kit(site)


def test_a_site_says_where_its_data_are_and_what_they_are_called_there(kits: Path) -> None:
    made_kits.write_site_toml(kits / "sites" / "county", Path("/data"), dataset="Dataset042_Own", device="cpu")
    kit = made_kits.site_kit(kits, "county")
    assert (kit.dataset, kit.device, kit.variables["nnUNet_raw"]) == ("Dataset042_Own", "cpu", "/data/nnunet_raw")
    assert made_kits.site_kit(kits, "university").dataset == 500


# --------------------------------------------------------------------------------------------- proxies and processes


def test_nginx_accepts_both_configurations(kits: Path) -> None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    coordinator, site = made_kits.coordinator_kit(kits), made_kits.site_kit(kits, "county")
    keys = {name: coordinator.node_key(name).read_bytes() for name in SITES}
    for kit, text in ((coordinator, proxy_configuration(coordinator, keys)), (site, sidecar_configuration(site))):
        (kit.folder / "nginx.conf").write_text(text)
        for name in ("logs", "tmp"):
            (kit.folder / name).mkdir()
        command = [nginx, "-t", "-p", ".", "-c", "nginx.conf", "-e", "logs/error.log"]
        result = subprocess.run(command, cwd=kit.folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_a_site_behind_a_tunnel_connects_to_the_tunnel(kits: Path) -> None:
    made_kits.write_site_toml(kits / "sites" / "county", kits, via="127.0.0.1:3128")
    assert "upstream coordinator { server 127.0.0.1:3128;" in sidecar_configuration(made_kits.site_kit(kits, "county"))


def test_status_counts_what_the_proxy_logged_of_each_site(kits: Path) -> None:
    kit = made_kits.coordinator_kit(kits)
    log = kit.folder / ACCESS_LOG
    log.parent.mkdir()
    log.write_text(
        "100.5 CN=county /v1/fleet/push-object 200 2000 150\n"
        "101.5 CN=county /v1/fleet/activate-node 403 900 150\n"
        "102.5 CN=nobody /v1/fleet/push-object 200 5000 150\n"
        "103.5 CN=county /v1/fl"
    )
    found = contacts(kit)
    county = found["county"]
    assert (county.last_seen, county.bytes_received, county.bytes_sent, county.refused) == (100.5, 2900, 300, 1)
    assert found["university"].last_seen is None


def test_a_unit_names_the_command_with_its_odd_characters_and_waits_before_it_restarts() -> None:
    text = unit("Site", ["/opt/a b/fedmepd", "site", "up", "/data/100%"], Path("/data/100%"), {"nnUNet_raw": "/a b"})
    assert "ExecStart='/opt/a b/fedmepd' site up /data/100%%" in text
    assert "Environment='nnUNet_raw=/a b'" in text
    assert {"Restart=on-failure", "RestartSec=20", "StartLimitIntervalSec=0", "KillMode=control-group"} <= set(
        text.splitlines()
    )


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_that_ends_is_started_again_and_all_are_ended_in_the_end(tmp_path: Path) -> None:
    count = tmp_path / "starts"
    code = f"open({str(count)!r}, 'a').write('x'); raise SystemExit(7)"
    failing = Program("failing", python(code), restart_seconds=0)
    lasting = Program("lasting", python("import time; time.sleep(600)"))
    told: list[str] = []
    with Processes([failing, lasting], tmp_path, told.append).running() as processes:
        lasting_id = json.loads(id_file(tmp_path).read_bytes())["lasting"]
        until = time.monotonic() + 60
        while (len(count.read_text()) if count.is_file() else 0) < 3:
            assert time.monotonic() < until
            processes.watch()
            time.sleep(0.05)
    assert "failing ended with code 7" in told[0]
    assert not Path(f"/proc/{lasting_id}").exists()
    assert not id_file(tmp_path).exists()


def test_a_program_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # without setpriv, whose log would tell it otherwise
    program = Program("missing", [str(tmp_path / "nothing")])
    with (
        pytest.raises(ProcessError, match="nothing cannot be started: No such file"),
        Processes([program], tmp_path, silent).running(),
    ):
        pass


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_processes_end_when_the_one_that_watches_them_is_killed(tmp_path: Path) -> None:
    code = (
        "import time, pathlib\n"
        "from nnunet_fedmepd.deployment.processes import Processes, Program\n"
        f"program = Program('sleeper', [{sys.executable!r}, '-c', 'import time; time.sleep(600)'])\n"
        f"with Processes([program], pathlib.Path({str(tmp_path)!r}), print).running():\n"
        "    time.sleep(600)\n"
    )
    watcher = subprocess.Popen(python(code))
    try:
        until = time.monotonic() + 120
        while not id_file(tmp_path).exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        sleeper = json.loads(id_file(tmp_path).read_bytes())["sleeper"]
    finally:
        watcher.kill()
        watcher.wait()
    until = time.monotonic() + 60
    while is_there(sleeper):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"secret")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert new_key().curve.name == "secp384r1"
