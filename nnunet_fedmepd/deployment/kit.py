"""The kits of a deployment: one folder for the coordinator, one for every site, and how they are read.

Of the coordinator:
KIT/kit.toml                                  where it listens, and for how long it waits; see `CoordinatorKit`
KIT/federation.toml                           the federation file
KIT/ca.crt  server.crt  server.key            sites know the coordinator by these
KIT/client_ca.crt                             the coordinator knows sites' connections by this
KIT/sites/NAME.pub  NAME.crt                  the public key of every site's node, and its certificate, the only one of
                                              that name that is let in; a revoked site has none
KIT/sites/NAME.old                            its node's keys of earlier, which are not taken again
KIT/nginx.conf  *.service                     the proxy in front of the engine; units for systemd
KIT/flwr/  flower.db  nodes.json              of the engine
KIT/run/  logs/  tmp/                         the run's folder; the processes' logs and short-lived files

Of a site:
KIT/kit.toml                                  who it is, and where the coordinator is; see `SiteKit`
KIT/site.toml                                 its own data and devices: the only file that the site edits
KIT/federation.toml
KIT/ca.crt  client.crt  client.key            the connection to the coordinator
KIT/client_ca.crt                             the node knows its proxy on the loopback address by this
KIT/supernode.key  supernode.pub              its node signs with it
KIT/nginx.conf  *.service
KIT/state/  spool/                            the site's run folder; files handed between its processes
KIT/logs/  tmp/                               the processes' logs and short-lived files
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation
from nnunet_fedmepd.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KIT_VARIABLE = "FEDMEPD_KIT"
"""Environment variable: the folder of the kit that an engine's process, and whatever it starts, belongs to."""

NNUNET_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class _File(BaseModel):
    """A TOML file of a kit: without unknown keys, and with values of the stated type only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class CoordinatorFile(_File):
    """kit.toml of the coordinator.

    Attributes:
        role: tells the two kinds of kits apart.
        host: name or address by which sites reach the coordinator; its certificate is for it.
        port: the only one that is published.
        listen: address that the proxy binds.
        superlink_port: of the engine, on 127.0.0.1.
        plan: whether the sites plan together before the first round.
        turn_limit_minutes: that a site has for its part of a round.
        wait_limit_minutes: that the coordinator waits for the minimum number of sites before it ends, resumable.
    """

    role: Literal["coordinator"]
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    listen: str = "0.0.0.0"
    superlink_port: int = Field(ge=1, le=65535)
    plan: bool = True
    turn_limit_minutes: float = Field(720.0, gt=0)
    wait_limit_minutes: float = Field(720.0, gt=0)


class SiteFile(_File):
    """kit.toml of a site.

    Attributes:
        role: tells the two kinds of kits apart.
        site: its name in the federation file.
        coordinator_host: name or address of the coordinator.
        coordinator_port: the only one that a site's firewall must let out.
        sidecar_port: of the proxy that holds the client certificate, on 127.0.0.1.
        supernode_port: of the engine's node, on 127.0.0.1.
    """

    role: Literal["site"]
    site: str
    coordinator_host: str = Field(min_length=1)
    coordinator_port: int = Field(ge=1, le=65535)
    sidecar_port: int = Field(ge=1, le=65535)
    supernode_port: int = Field(ge=1, le=65535)


class OwnFile(_File):
    """site.toml: what only the site knows. Empty folders are those of nnU-Net's environment variables.

    Attributes:
        nnunet_raw: folder.
        nnunet_preprocessed: folder.
        nnunet_results: folder.
        dataset: number or full name at this site; empty: that of the federation file.
        device: such as `cuda:0`, `cpu`; empty: the first GPU, else the CPU.
        via: `host:port` of a tunnel to the coordinator, where the network lets nothing out directly.
    """

    nnunet_raw: str = ""
    nnunet_preprocessed: str = ""
    nnunet_results: str = ""
    dataset: int | str = ""
    device: str = Field("", pattern=r"^(cpu|mps|cuda(:\d+)?)?$")
    via: str = Field("", pattern=r"^(\S+:\d+)?$")


@dataclass(frozen=True)
class Kit:
    """What both kinds of kits have."""

    folder: Path

    @property
    def federation_file(self) -> Path:
        """The federation file as the coordinator hands it out; datasets in it are those that it knows of."""
        return self.folder / "federation.toml"

    @property
    def federation(self) -> Federation:
        """What the federation file says.

        Raises:
            ConfigurationError: mistakes in it.
        """
        return load_federation(self.federation_file)

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.folder / "logs"

    @property
    def engine_secret(self) -> Path:
        """With this, tasks are taken from the engine's process of this kit; it is made anew at every start."""
        return self.folder / "tmp" / "engine.secret"


@dataclass(frozen=True)
class CoordinatorKit(Kit):
    """The coordinator's kit; see `CoordinatorFile` for the values, and above for the files."""

    host: str
    port: int
    listen: str
    superlink_port: int
    plan: bool
    turn_limit_minutes: float
    wait_limit_minutes: float

    @property
    def run_folder(self) -> Path:
        """Where the coordinator's states and the journal are."""
        return self.folder / "run"

    @property
    def flwr_home(self) -> Path:
        """Folder of the engine's own files."""
        return self.folder / "flwr"

    @property
    def node_file(self) -> Path:
        """JSON, site -> id of its node in the engine; made when the engine starts.

        It follows from the registered keys. What a node says about itself does not tell which site it is.
        """
        return self.folder / "nodes.json"

    def node_key(self, site: str) -> Path:
        """Return the public key of a site's node."""
        return self.folder / "sites" / f"{site}.pub"

    def certificate(self, site: str) -> Path:
        """Return a site's certificate; no such file where the site is revoked."""
        return self.folder / "sites" / f"{site}.crt"

    def old_node_keys(self, site: str) -> Path:
        """Return the public keys that a site's node had before, one a line; no such file where it had none."""
        return self.folder / "sites" / f"{site}.old"

    def is_revoked(self, site: str) -> bool:
        """Return whether a site is not let in any more."""
        return not self.certificate(site).is_file()


@dataclass(frozen=True)
class SiteKit(Kit):
    """A site's kit; see `SiteFile` and `OwnFile` for the values, and above for the files."""

    site: str
    coordinator_host: str
    coordinator_port: int
    sidecar_port: int
    supernode_port: int
    nnunet_raw: Path
    nnunet_preprocessed: Path
    nnunet_results: Path
    dataset: int | str
    device: str
    via: str

    @property
    def own_federation(self) -> Federation:
        """What the federation file says, with this site's dataset as it is called here.

        Raises:
            ConfigurationError: mistakes in it.
        """
        federation = self.federation
        tables = [
            site.model_copy(update={"dataset": self.dataset}) if site.name == self.site else site
            for site in federation.site
        ]
        return federation.model_copy(update={"site": tuple(tables)})

    @property
    def state_folder(self) -> Path:
        """The site's run folder: its personal filters, its optimizer, its saved replies."""
        return self.folder / "state"

    @property
    def spool_folder(self) -> Path:
        """Files handed between the engine's process and the site's."""
        return self.folder / "spool"

    @property
    def variables(self) -> dict[str, str]:
        """nnU-Net's environment variables for the site's processes."""
        folders = (self.nnunet_raw, self.nnunet_preprocessed, self.nnunet_results)
        return dict(zip(NNUNET_VARIABLES, map(str, folders), strict=True))


def load_coordinator_kit(folder: str | Path) -> CoordinatorKit:
    """Return the coordinator's kit in a folder.

    Raises:
        ConfigurationError: no kit, one of a site, or mistakes in kit.toml.
    """
    folder = _kit_folder(folder, "coordinator")
    file = read_kit_file(folder / "kit.toml", CoordinatorFile)
    return CoordinatorKit(folder, **file.model_dump(exclude={"role"}))


def load_site_kit(folder: str | Path) -> SiteKit:
    """Return the kit of a site in a folder; the site must be in its federation file.

    Raises:
        ConfigurationError: no kit, the coordinator's, mistakes in kit.toml or site.toml, or a folder of nnU-Net is
            named neither there nor in the environment.
    """
    folder = _kit_folder(folder, "site")
    file, own = read_kit_file(folder / "kit.toml", SiteFile), read_kit_file(folder / "site.toml", OwnFile)
    table = load_federation(folder / "federation.toml").site_named(file.site)
    raw, preprocessed, results = (_own_folder(own, variable, folder / "site.toml") for variable in NNUNET_VARIABLES)
    return SiteKit(
        folder,
        **file.model_dump(exclude={"role"}),
        nnunet_raw=raw,
        nnunet_preprocessed=preprocessed,
        nnunet_results=results,
        dataset=own.dataset or table.dataset,
        device=own.device,
        via=own.via,
    )


def _own_folder(own: OwnFile, variable: str, file: Path) -> Path:
    value = getattr(own, variable.lower()) or os.environ.get(variable, "")
    if not value:
        raise ConfigurationError(
            f"{file} leaves {variable.lower()} empty, and the environment variable {variable} is not set; write the "
            "folder of this site's data there."
        )
    return Path(value).expanduser().absolute()


def _kit_folder(folder: str | Path, role: str) -> Path:
    path = Path(folder).absolute()
    if not (path / "kit.toml").is_file():
        raise ConfigurationError(f"{path} is no kit: expected the file kit.toml, which `fedmepd deploy init` makes.")
    found = _parse(path / "kit.toml").get("role")
    if found != role:
        commands = {"coordinator": "fedmepd deploy", "site": "fedmepd site"}
        use = f"; it is for `{commands[found]}`" if found in commands else ""
        raise ConfigurationError(f"{path / 'kit.toml'}: expected role = {role!r}, found {found!r}{use}.")
    return path


FileModel = TypeVar("FileModel", bound=_File)


def read_kit_file(file: Path, model: type[FileModel]) -> FileModel:
    """Return what a TOML file of a kit says.

    Raises:
        ConfigurationError: mistakes in it.
    """
    try:
        return model.model_validate(dict(_parse(file)))
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, found['loc'][:1]))}: {found['msg']}" for found in error.errors()]
        known = ", ".join(model.model_fields)
        raise ConfigurationError(
            "\n  ".join([f"{file} has mistakes (known keys: {known}):", *dict.fromkeys(mistakes)])
        ) from None


def _parse(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is no valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from None
