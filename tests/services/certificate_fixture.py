"""Certificates and tokens on disk, as an operator puts them there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from services.client import ClientSecurity

READ_TOKEN = "read-0123456789-shop-front"
WRITE_TOKEN = "write-0123456789-catalogue"
ADMIN_TOKEN = "admin-0123456789-operator"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """Where a certificate and its key stand."""

    certificate: Path
    key: Path


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file in place in one rename, as tools that renew certificates do."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.replace(path)


def install(issued: trustme.LeafCert, pair: Pair) -> None:
    """The key goes first: for a moment the two files do not belong together."""
    replace_file(pair.key, issued.private_key_pem.bytes())
    replace_file(pair.certificate, b"".join(one.bytes() for one in issued.cert_chain_pems))


class Authority:
    """A certificate authority with its files in a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self._authority.cert_pem.bytes())

    def issue(self, name: str, **dates: datetime) -> Pair:
        """A certificate for loopback under a file name."""
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        self.renew(pair, **dates)
        return pair

    def renew(self, pair: Pair, **dates: datetime) -> None:
        install(self._authority.issue_cert("127.0.0.1", "localhost", **dates), pair)

    def client(self, own: Pair | None = None, token: Path | None = None) -> ClientSecurity:
        """A client that trusts this authority."""
        return ClientSecurity(self.file, own and own.certificate, own and own.key, token)


def server_settings(pair: Pair | None = None, clients: Authority | None = None, tokens: Path | None = None) -> dict[str, str]:
    """Section [serve.security]."""
    return {
        "certificate": str(pair.certificate) if pair else "",
        "private_key": str(pair.key) if pair else "",
        "client_authorities": str(clients.file) if clients else "",
        "tokens": str(tokens) if tokens else "",
    }


def secret_file(path: Path, text: str, mode: int = 0o600) -> Path:
    """A file with a secret."""
    path.write_text(text)
    path.chmod(mode)
    return path


def token_file(directory: Path) -> Path:
    """Three callers, one of each scope."""
    lines = [f"read shop {READ_TOKEN}", f"write catalogue {WRITE_TOKEN}", f"admin operator {ADMIN_TOKEN}  # a note"]
    return secret_file(directory / "tokens", "\n".join(lines) + "\n")
