"""What a federation over a network needs beyond the package's own requirements."""

from __future__ import annotations

from importlib.util import find_spec

from nnunet_fedmepd.errors import ConfigurationError


def require_deployment_extra() -> None:
    """Check that the extra is installed.

    Raises:
        ConfigurationError: it is not.
    """
    if missing := [name for name in ("flwr", "cryptography") if find_spec(name) is None]:
        raise ConfigurationError(
            f"{' and '.join(missing)} not installed; a federation over a network needs the extra: "
            "pip install 'nnunet-fedmepd[deployment]'"
        )
