"""How a client shows who it is: TLS files and a bearer token, both followed while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from llmgr_core.errors import InputError
from services.client.addresses import stays_on_this_machine
from services.security.server_certificate import CertificateFiles, CheckedCertificate
from services.security.watched_files import Signature, read_file, read_secret, signature_of

PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class ClientSecurity:
    """What a client trusts, and what it shows. Files are read again when they change.

    Attributes:
        authorities: PEM file of the authorities that the server's certificate may come from; turns TLS on.
        certificate, private_key: PEM files of the client's own certificate, for servers that ask for one.
        token_file: file that holds one bearer token; other users must not be able to read it.
        server_name: name in the server's certificate where the address is another one (an IP, a proxy); "" for the address.
        plain_text_token: send the token in plain text to other machines too, where the network itself is guarded.
    """

    authorities: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    token_file: Path | None = None
    server_name: str = ""
    plain_text_token: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise InputError("a client's certificate and its key are given together or not at all")
        if self.certificate is not None and self.authorities is None:
            raise InputError("a client's certificate needs TLS", "give the authorities file of the server too")

    @property
    def tls_files(self) -> list[Path]:
        return [path for path in (self.authorities, self.certificate, self.private_key) if path is not None]

    def signature(self) -> Signature:
        """What changes when the TLS files do; () where one is missing, as in the middle of a renewal."""
        try:
            return signature_of(self.tls_files)
        except OSError:
            return ()

    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS with what stands in the files now; None for plain text.

        Raises:
            InputError: a file is missing, expired, of no use, or open to other users.
        """
        if self.authorities is None:
            return None
        authorities = read_file(self.authorities)
        if PEM_BEGIN not in authorities:
            raise InputError(f"{self.authorities} holds no certificates in PEM form")
        if self.certificate is None or self.private_key is None:
            return grpc.ssl_channel_credentials(authorities)
        own = CheckedCertificate.read(CertificateFiles(self.certificate, self.private_key))
        return grpc.ssl_channel_credentials(authorities, own.private_key, own.chain)

    def require_safe_address(self, address: str) -> None:
        """Look at where a token would go.

        Raises:
            InputError: in plain text to another machine.
        """
        if self.token_file is None or self.authorities is not None or self.plain_text_token:
            return
        if not stays_on_this_machine(address):
            raise InputError(
                f"refusing to send a token to {address} in plain text: whoever listens on the way could use it",
                "give the authorities file of the server, so that the connection is encrypted",
            )


class FollowedToken:
    """The token of a file, read again when it changes.

    Raises:
        InputError: missing, open to other users, or not one line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature = signature_of([path]) if path.exists() else ()
        self._token = _read_token(path)

    def current(self) -> str:
        """What to send now; the last good one while the file is being replaced."""
        try:
            signature = signature_of([self._path])
            if signature != self._signature:
                self._token = _read_token(self._path)
                self._signature = signature
        except (OSError, InputError):
            pass
        return self._token


def _read_token(path: Path) -> str:
    words = read_secret(path).decode("ascii", "replace").split()
    if len(words) != 1 or not words[0].isprintable():
        raise InputError(f"{path} holds {len(words)} words, not one token", "write the token alone into it")
    return words[0]
