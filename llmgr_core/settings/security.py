"""Settings of section [serve.security]."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from llmgr_core.settings.section import Section


class SecuritySettings(Section):
    """Section [serve.security]: who may talk to both servers. Files are read again when they change; "" means none.

    Attributes:
        certificate: PEM file of the server's certificate, with the chain below its authority after it. Turns TLS on.
        private_key: PEM file of its key; other users must not be able to read it.
        client_authorities: PEM file of the authorities that clients' certificates come from. Turns mutual TLS on: a client
            without a certificate of theirs is refused in the handshake.
        tokens: file of bearer tokens, a line each: scope (read, write or admin), name, token. Other users must not be able to
            read it. Every call but the health check then needs a token.
        plain_text: listen without TLS on other interfaces than loopback. Whoever reaches the port then reads all, and
            without tokens changes all.
    """

    certificate: str = ""
    private_key: str = ""
    client_authorities: str = ""
    tokens: str = ""
    plain_text: bool = False

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if bool(self.certificate) != bool(self.private_key):
            raise ValueError("certificate and private_key are given together or not at all")
        if self.client_authorities and not self.certificate:
            raise ValueError("client_authorities needs certificate and private_key: clients are told apart by TLS")
        return self
