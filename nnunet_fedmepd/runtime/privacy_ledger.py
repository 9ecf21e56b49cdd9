"""What a site alone knows about its protected updates: the secret of its noise, and which updates it gave away.

RUN/sites/NAME/privacy/ledger.json, in a folder that only its owner may enter.

The secret is drawn once and outlives every state of the site: whatever is trained again gets the noise that it had. An
update is written down before it is given away; the same update again is not counted again, another one is, and there
are never more than the federation file announces. The ledger is one run's: a site that takes part in several runs with
the same data spends the sum.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.storage import write_atomically
from nnunet_fedmepd.runtime.run_folder import RunFolder, read_json

_SECRET_BYTES = 32


class PrivacyError(FedMEPDError):
    """A site does not give an update away, since its privacy would not be what the federation file says."""


class PrivacyLedger:
    """One site's ledger in one run; made where there is none.

    Args:
        run: the run's folder.
        site: whose ledger.
        limit: updates that the federation file lets the site send.

    Raises:
        PrivacyError: the site trained before, but its ledger is gone.
        StateFileError: the ledger is damaged, or cannot be written.
    """

    def __init__(self, run: RunFolder, site: str, limit: int) -> None:
        self.site, self.limit, self._file = site, limit, ledger_file(run, site)
        if not self._file.is_file():
            if run.site(site).rounds():
                raise PrivacyError(
                    f"Site {site!r} trained in this run before, but {self._file} is missing: its noise cannot be "
                    "repeated, and what it spent is not known. Restore the file from a backup, or start a new run with "
                    "--run FOLDER, which spends anew."
                )
            run.site(site).folder.mkdir(parents=True, exist_ok=True)
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            self._write(secrets.token_hex(_SECRET_BYTES), [])
        content = read_json(self._file)
        self.secret, self._sent = bytes.fromhex(content["secret"]), list(content["sent"])

    def enter(self, message: bytes) -> None:
        """Write an update down, before it is given away.

        Raises:
            PrivacyError: the update is one more than announced.
            StateFileError: the ledger cannot be written.
        """
        digest = hashlib.sha256(message).hexdigest()
        if digest in self._sent:
            return
        if len(self._sent) >= self.limit:
            raise PrivacyError(
                f"Site {self.site!r} gave away {len(self._sent)} updates, all that the federation file announces; it "
                "was asked for one more, which would spend more privacy than announced. Were states lost, so that a "
                "round was trained again? Start a new run with --run FOLDER, which spends anew."
            )
        self._write(self.secret.hex(), [*self._sent, digest])
        self._sent.append(digest)

    def _write(self, secret: str, sent: list[str]) -> None:
        write_atomically(self._file, json.dumps({"secret": secret, "sent": sent}, indent=2).encode())


def ledger_file(run: RunFolder, site: str) -> Path:
    """Return where a site's ledger lies."""
    return run.site(site).folder / "privacy" / "ledger.json"


def updates_sent(run: RunFolder, site: str) -> int:
    """Return how many updates a site gave away; where its ledger is elsewhere, how many arrived here.

    Raises:
        StateFileError: the ledger is damaged.
    """
    if (file := ledger_file(run, site)).is_file():
        return len(read_json(file)["sent"])
    return sum(line["site"] == site and line.get("bytes_sent", 0) > 0 for line in run.journal())
