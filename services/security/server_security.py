"""Everything that guards one server, put together from the settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
from prometheus_client import Counter, Gauge

from llmgr_core.errors import LlmgrError
from llmgr_core.settings.security import SecuritySettings
from services.security.gate import AsyncGate, Gate, SyncGate
from services.security.server_certificate import CertificateFiles, ServerCertificate
from services.security.tokens import TokenFile
from services.server.addresses import is_loopback
from services.server.observation import CallObserver


class ServerSecurity:
    """Certificate and tokens of a server, both followed while it runs.

    Args:
        settings: which files.
        observer: logs and counts what is refused and what is read again.

    Raises:
        LlmgrError: a file is missing, open to other users, or of no use.
    """

    def __init__(self, settings: SecuritySettings, observer: CallObserver) -> None:
        self._plain_text = settings.plain_text
        self._mutual = bool(settings.client_authorities)
        self._log = observer.log
        reloads = Counter(
            "llmgr_security_reloads", "Changed security files, by outcome", ["file", "outcome"], registry=observer.registry
        )

        def reporter(kind: str) -> Callable[[Exception | None], None]:
            for outcome in ("taken", "refused"):
                reloads.labels(kind, outcome)

            def report(problem: Exception | None) -> None:
                reloads.labels(kind, "taken" if problem is None else "refused").inc()
                if problem is None:
                    self._log.info("security_file_taken", file=kind)
                else:
                    self._log.error("security_file_refused", file=kind, problem=str(problem))

            return report

        self._certificate: ServerCertificate | None = None
        if settings.certificate:
            authorities = Path(settings.client_authorities) if settings.client_authorities else None
            files = CertificateFiles(Path(settings.certificate), Path(settings.private_key), authorities)
            certificate = self._certificate = ServerCertificate(files, reporter("certificate"))
            expiry = Gauge(
                "llmgr_certificate_expiry_timestamp_seconds", "End of the certificate's validity", registry=observer.registry
            )

            def expires() -> float:
                certificate.refresh()
                return certificate.expires.timestamp()

            expiry.set_function(expires)
        self._gate = Gate(TokenFile(Path(settings.tokens), reporter("tokens")), observer) if settings.tokens else None

    def credentials(self) -> grpc.ServerCredentials | None:
        """TLS for one port; None for plain text."""
        return None if self._certificate is None else self._certificate.credentials()

    def sync_interceptors(self) -> list[grpc.ServerInterceptor]:
        """Of a threaded server."""
        return [] if self._gate is None else [SyncGate(self._gate)]

    def async_interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """Of an asyncio server."""
        return [] if self._gate is None else [AsyncGate(self._gate)]

    def require_safe_host(self, host: str) -> None:
        """Look at an interface before listening on it.

        Raises:
            LlmgrError: other machines could reach it in plain text, and nobody said that they may.
        """
        if self._certificate is None and not self._plain_text and not is_loopback(host):
            raise LlmgrError(
                f"refusing to listen on {host} in plain text: other machines could read and change the catalogue",
                "give a certificate (--tls-certificate, --tls-key), or say --plain-text where the network is guarded",
            )

    def require_known_callers(self, host: str) -> None:
        """Look at an interface before operating a server is offered on it.

        Raises:
            LlmgrError: other machines could do so without showing who they are.
        """
        self.require_safe_host(host)
        if not is_loopback(host) and self._gate is None and not self._mutual:
            raise LlmgrError(
                f"refusing an admin port on {host}: whoever reaches it could operate the server",
                "give tokens (--tokens) or the authorities of clients (--tls-client-ca), or leave the admin port out",
            )

    def warn_of_open_host(self, host: str) -> None:
        """Log what is allowed on an interface but leaves it open."""
        if is_loopback(host):
            return
        if self._certificate is None:
            self._log.warning("listening_in_plain_text", host=host, danger="whoever can reach the port reads everything sent")
        if self._gate is None and not self._mutual:
            self._log.warning("listening_without_tokens", host=host, danger="whoever can reach the port may call every method")
