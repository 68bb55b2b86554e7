"""The certificate of a server, renewed without a restart: each handshake gets what stands in the files then."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from llmgr_core.errors import InputError
from services.security.certificate_dates import not_after
from services.security.watched_files import Signature, read_file, read_secret, signature_of


@dataclass(frozen=True)
class CertificateFiles:
    """Where a certificate stands.

    Attributes:
        certificate: PEM, the leaf first, its chain after it.
        private_key: PEM.
        authorities: PEM, of those who are believed about the other side; None for none.
    """

    certificate: Path
    private_key: Path
    authorities: Path | None = None

    @property
    def paths(self) -> list[Path]:
        return [self.certificate, self.private_key, *([self.authorities] if self.authorities else [])]

    def signature(self) -> Signature:
        """What changes when one of them does; () where one is missing, as in the middle of a renewal."""
        try:
            return signature_of(self.paths)
        except OSError:
            return ()


@dataclass(frozen=True)
class CheckedCertificate:
    """Contents of the files, found to belong together.

    Attributes:
        chain, private_key, authorities: PEM.
        expires: end of validity.
    """

    chain: bytes
    private_key: bytes
    authorities: bytes | None
    expires: datetime

    @classmethod
    def read(cls, files: CertificateFiles) -> CheckedCertificate:
        """Read and check.

        Raises:
            InputError: unreadable, no PEM, expired, a key that others can read or that is another certificate's.
        """
        while True:
            before = files.signature()
            read = cls._read_once(files)
            # The check opens the files a second time: a renewal in between would pass bytes that nobody checked.
            if files.signature() == before:
                return read

    @classmethod
    def _read_once(cls, files: CertificateFiles) -> CheckedCertificate:
        chain, private_key = read_file(files.certificate), read_secret(files.private_key)
        authorities = None if files.authorities is None else read_file(files.authorities)
        try:
            expires = not_after(chain)
        except ValueError as error:
            raise InputError(f"{files.certificate}: {error}", "give the certificate in PEM form") from None
        if expires <= datetime.now(UTC):
            raise InputError(f"the certificate {files.certificate} has expired on {expires:%Y-%m-%d %H:%M} UTC", "renew it")
        try:
            # No password is asked for on a terminal: a server has none.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.private_key, password="")
        except (ssl.SSLError, OSError):
            raise InputError(
                f"{files.private_key} is not the key of {files.certificate}, or one of them is damaged",
                "give an unencrypted PEM key and the certificate that was issued for it",
            ) from None
        if authorities is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=authorities.decode("ascii"))
            except (ssl.SSLError, ValueError):
                raise InputError(f"{files.authorities} holds no certificates in PEM form") from None
        return cls(chain, private_key, authorities, expires)

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """As gRPC takes it."""
        return grpc.ssl_server_certificate_configuration([(self.private_key, self.chain)], self.authorities)


class ServerCertificate:
    """Credentials that follow their files. Connections that stand keep the certificate they began with.

    A changed set of files that does not fit together (a key without its certificate yet, an expired one) leaves the old
    certificate in use, and is reported once.

    Args:
        files: with ``authorities`` set, clients must have a certificate of theirs.
        on_reload: told what came of changed files: None, or why they were refused.

    Raises:
        InputError: see CheckedCertificate.read.
    """

    def __init__(self, files: CertificateFiles, on_reload: Callable[[Exception | None], None] = lambda problem: None) -> None:
        self._files = files
        self._on_reload = on_reload
        self._checking = threading.Lock()
        self._seen = self._files.signature()
        self._served = CheckedCertificate.read(files)

    @property
    def expires(self) -> datetime:
        """End of validity of the certificate in use."""
        return self._served.expires

    def credentials(self) -> grpc.ServerCredentials:
        """For add_secure_port; TLS 1.2 or newer. Each port takes credentials of its own."""
        handed = self._served

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """gRPC asks before every handshake; None keeps what it has."""
            nonlocal handed
            self.refresh()
            if self._served is handed:
                return None
            handed = self._served
            return handed.configuration()

        mutual = self._files.authorities is not None
        # The stubs do not know that a fetcher may answer None.
        return grpc.dynamic_ssl_server_credentials(handed.configuration(), changed, mutual)  # type: ignore[arg-type]

    def refresh(self) -> bool:
        """Look at the files; returns whether another certificate is in use now."""
        with self._checking:
            signature = self._files.signature()
            if signature == self._seen:
                return False
            self._seen = signature
            try:
                self._served = CheckedCertificate.read(self._files)
            except InputError as problem:
                self._on_reload(problem)
                return False
        self._on_reload(None)
        return True
