"""Sites that are added, get new keys, or are revoked, one at a time: the kits of all others stay as they are.

Here only files are changed; `locking_out` makes what runs act by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation
from nnunet_fedmepd.deployment.certificates import load_authority, load_certificate, new_key, public_node_key_bytes
from nnunet_fedmepd.deployment.init import PORTS_PER_SITE, Place, file_content
from nnunet_fedmepd.deployment.kit import CoordinatorKit, SiteFile, load_coordinator_kit, read_kit_file
from nnunet_fedmepd.deployment.requests import federation_digest, is_same_federation
from nnunet_fedmepd.deployment.site_kits import Admitted, SiteKits
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.storage import write_atomically
from nnunet_fedmepd.runtime.run_folder import flat_differences


def add_sites(kits: Path, file: str | Path, requests: Path | None, days: int) -> list[Admitted]:
    """Make the kits of the sites that a federation file lists and no kit was made for yet.

    Args:
        kits: folder that `make_kits` made, with its authority.
        file: federation file with the new sites; all else in it is as it was.
        requests: folder of the files that `fedmepd site keys` made at the new sites; None makes their keys here.
        days: for which their certificates are valid.

    Raises:
        ConfigurationError: the file lists no new site or changes something else, a run has begun without the new
            sites, or the authority or a request is missing.
        StateFileError: a folder cannot be written.
    """
    coordinator, federation = load_coordinator_kit(kits / "coordinator"), load_federation(file)
    new = _new_sites(coordinator, federation, file)
    _refuse_in_a_run(coordinator, new)
    _refuse_leftovers(kits, new)
    maker = _maker(kits, coordinator, file_content(file), days)
    admitted = [maker.admit(site, requests) for site in new]
    for site, first_port in zip(admitted, _free_ports(kits, coordinator), strict=False):
        maker.write_kit(kits / "sites" / site.keys.site, site, first_port)
        site.write_known(coordinator.folder)
    write_atomically(coordinator.federation_file, maker.content)
    return admitted


def renew_site(kits: Path, site: str, requests: Path | None, days: int) -> tuple[Admitted, list[str]]:
    """Give a site new keys and a new certificate, also one that was revoked; those that it had are let in no more.

    Args:
        kits: folder that `make_kits` made, with its authority.
        site: its name.
        requests: folder of the file that `fedmepd site keys` made at the site; None makes its keys here.
        days: for which the certificate is valid.

    Returns:
        The site, and the names of the files that are new in its kit.

    Raises:
        ConfigurationError: there is no such site, it sent keys that it had before, or the authority is missing.
        StateFileError: a folder cannot be written.
    """
    coordinator, folder = load_coordinator_kit(kits / "coordinator"), kits / "sites" / site
    coordinator.federation.site_named(site)
    admitted = _maker(kits, coordinator, b"", days).admit(site, requests)
    if admitted.request.node_key in (coordinator.node_key(site).read_bytes(), *_old_keys(coordinator, site)):
        raise ConfigurationError(
            f"The request of site {site!r} holds the keys that it had before. Let it make new ones in a new folder: "
            f"`fedmepd site keys {site} FOLDER`."
        )
    revoke_site(coordinator, site)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = admitted.write_access(folder)
    admitted.write_known(coordinator.folder)
    return admitted, files


def revoke_site(kit: CoordinatorKit, site: str) -> None:
    """Take a site out of what the coordinator lets in; the federation file still lists it, and a run goes on without.

    Args:
        kit: of the coordinator.
        site: its name.

    Raises:
        ConfigurationError: there is no such site.
        StateFileError: the kit cannot be written.
    """
    kit.federation.site_named(site)
    if kit.is_revoked(site):
        return
    old = [*_old_keys(kit, site), kit.node_key(site).read_bytes()]
    write_atomically(kit.old_node_keys(site), b"".join(old))
    # A key that nobody has stands for the site, which is then a node that never connects.
    write_atomically(kit.node_key(site), public_node_key_bytes(new_key().public_key()))
    kit.certificate(site).unlink()


def _old_keys(kit: CoordinatorKit, site: str) -> list[bytes]:
    file = kit.old_node_keys(site)
    return file.read_bytes().splitlines(keepends=True) if file.is_file() else []


def _new_sites(kit: CoordinatorKit, federation: Federation, file: str | Path) -> list[str]:
    known, listed = ([site.name for site in each.site] for each in (kit.federation, federation))
    if missing := [name for name in known if name not in listed]:
        raise ConfigurationError(
            f"{file} does not list {', '.join(missing)}, for which there are kits. Leave all sites in it; `fedmepd "
            "deploy revoke` locks one out."
        )
    if not is_same_federation(federation_digest(kit.federation), federation_digest(federation)):
        raise ConfigurationError(
            "\n  ".join([f"{file} changes more than the sites of {kit.federation_file}:", *_changes(kit, federation)])
            + "\nWith another federation file all sites need new kits: `fedmepd deploy init` makes them."
        )
    if not (new := [name for name in listed if name not in known]):
        raise ConfigurationError(f"{file} lists no site that there is no kit for yet; add a [[site]] table to it.")
    return new


def _refuse_leftovers(kits: Path, new: list[str]) -> None:
    if found := [str(kits / "sites" / site) for site in new if (kits / "sites" / site).exists()]:
        raise ConfigurationError(
            f"{', '.join(found)}: there already, though the coordinator knows no such site. Was the command broken "
            "off? Then remove it and repeat the command."
        )


def _changes(kit: CoordinatorKit, federation: Federation) -> list[str]:
    def content(of: Federation) -> dict[str, Any]:
        values = of.model_dump(mode="json")
        sites = {site["name"]: {**site, "dataset": None} for site in values.pop("site")}
        return {**values, "site": {site.name: sites[site.name] for site in kit.federation.site}}

    return flat_differences(content(kit.federation), content(federation))


def _refuse_in_a_run(kit: CoordinatorKit, new: list[str]) -> None:
    if (kit.run_folder / "sites.json").is_file():  # it is written when all sites have joined and planned
        raise ConfigurationError(
            f"{kit.run_folder} holds a run that {', '.join(new)} did not plan with; a site cannot enter it later. "
            "When it has ended, move that folder away: the next run is one with all sites. A site that is known to "
            "come later is listed from the start, with the rounds before as its absent_rounds."
        )


def _maker(kits: Path, kit: CoordinatorKit, content: bytes, days: int) -> SiteKits:
    authority = kits / "authority"
    if not authority.is_dir():
        raise ConfigurationError(
            f"{authority} is not there. It signs certificates: bring it back from where it is kept, for this command."
        )
    server, client = load_certificate(kit.folder / "ca.crt"), load_authority(authority, "client_ca")
    return SiteKits(kit.federation.name, content, kit.host, kit.port, server, client, days)


def _free_ports(kits: Path, kit: CoordinatorKit) -> range:
    """Return the first ports of sites' pairs that no kit here has; those that were handed out are counted."""
    taken = [read_kit_file(file, SiteFile).sidecar_port for file in (kits / "sites").glob("*/kit.toml")]
    first = min(taken, default=Place.first_site_port) + PORTS_PER_SITE * len(kit.federation.site)
    return range(max([first, *(port + PORTS_PER_SITE for port in taken)]), 65535, PORTS_PER_SITE)
