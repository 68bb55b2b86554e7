"""Until when an X.509 certificate is valid (RFC 5280, section 4.1), read from its DER form.

The standard library verifies certificates but does not tell the dates of one that is not connected to anything.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

UTC_TIME, GENERALIZED_TIME, EXPLICIT_VERSION = 0x17, 0x18, 0xA0
PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def not_after(pem: bytes) -> datetime:
    """End of validity of the first certificate of a PEM file.

    Raises:
        ValueError: there is none, or it is no certificate.
    """
    found = PEM_CERTIFICATE.search(pem.decode("ascii", "replace"))
    if found is None:
        raise ValueError("no certificate in PEM form")
    try:
        certificate, _ = _element(ssl.PEM_cert_to_DER_cert(found.group()))
        rest, _ = _element(certificate)
        if rest[0] == EXPLICIT_VERSION:
            _, rest = _element(rest)
        for _ in ("serial number", "signature algorithm", "issuer"):
            _, rest = _element(rest)
        validity, _ = _element(rest)
        _, end = _element(validity)
        return _time(end[0], _element(end)[0].decode("ascii"))
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error


def _element(data: bytes) -> tuple[bytes, bytes]:
    """Contents of the first DER element, and what follows it."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[start : start + length], data[start + length :]


def _time(tag: int, text: str) -> datetime:
    if tag not in (UTC_TIME, GENERALIZED_TIME):
        raise ValueError("not a certificate")
    if tag == UTC_TIME:
        # Two digits of the year: 50 to 99 are of the last century.
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
