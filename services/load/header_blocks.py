"""Header blocks of HTTP/2 (RFC 7541), as far as a gRPC client without a dynamic table needs them."""

from __future__ import annotations

from collections.abc import Sequence

# Fields of the static table (RFC 7541, appendix A).
METHOD_POST, SCHEME_HTTP = 0x83, 0x86
AUTHORITY, PATH, CONTENT_TYPE, USER_AGENT = 1, 4, 31, 58
STATUS_NAME = b"grpc-status"
UNKNOWN_STATUS = 2
# "grpc-status" and the digits 0 to 9 in the Huffman code (appendix B), which a server may use or not.
HUFFMAN_STATUS_NAME = bytes.fromhex("9acac8b21234da8f")
HUFFMAN_DIGITS = (
    (0b00000, 5), (0b00001, 5), (0b00010, 5), (0b011001, 6), (0b011010, 6),
    (0b011011, 6), (0b011100, 6), (0b011101, 6), (0b011110, 6), (0b011111, 6),
)  # fmt: skip


def request_block(authority: str, path: str, metadata: Sequence[tuple[str, str]], timeout: float | None) -> bytes:
    """Headers of one gRPC call; the same bytes for every call, as nothing in them refers to earlier ones.

    Args:
        authority: host:port.
        path: "/package.Service/Method".
        metadata: further headers, keys in lower case.
        timeout: seconds the server is told it has; None tells nothing.
    """
    block = bytes((METHOD_POST, SCHEME_HTTP))
    block += _integer(PATH, 4, 0x00) + _text(path)
    block += _integer(AUTHORITY, 4, 0x00) + _text(authority)
    block += _integer(CONTENT_TYPE, 4, 0x00) + _text("application/grpc")
    block += _integer(USER_AGENT, 4, 0x00) + _text("llmgr-load")
    fields = [("te", "trailers"), *metadata]
    if timeout is not None:
        fields.append(("grpc-timeout", f"{max(int(timeout * 1e6), 1)}u" if timeout < 99 else f"{int(timeout * 1e3)}m"))
    for key, value in fields:
        block += b"\x00" + _text(key) + _text(value)
    return block


def status_in(block: bytes) -> int | None:
    """The number in ``grpc-status`` of a header block; None where it has none."""
    place = 0
    while place < len(block):
        first = block[place]
        if first & 0x80:
            _, place = _read_integer(block, place, 7)
            continue
        if first & 0xE0 == 0x20:
            _, place = _read_integer(block, place, 5)
            continue
        index, place = _read_integer(block, place, 6 if first & 0x40 else 4)
        name, coded = b"", False
        if index == 0:
            name, coded, place = _read_text(block, place)
        value, huffman, place = _read_text(block, place)
        if name == (HUFFMAN_STATUS_NAME if coded else STATUS_NAME):
            return _status(value, huffman)
    return None


def _status(value: bytes, huffman: bool) -> int:
    if not huffman:
        return int(value) if value.isdigit() else UNKNOWN_STATUS
    bits, length = int.from_bytes(value), 8 * len(value)
    number = 0
    while length >= HUFFMAN_DIGITS[0][1]:
        found = next(
            (n for n, (code, size) in enumerate(HUFFMAN_DIGITS) if size <= length and bits >> (length - size) == code), None
        )
        if found is None:
            break
        number = 10 * number + found
        length -= HUFFMAN_DIGITS[found][1]
        bits &= (1 << length) - 1
    return number


def _integer(value: int, prefix: int, flags: int) -> bytes:
    most = (1 << prefix) - 1
    if value < most:
        return bytes((flags | value,))
    written = bytearray((flags | most,))
    value -= most
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _integer(len(raw), 7, 0x00) + raw


def _read_integer(block: bytes, place: int, prefix: int) -> tuple[int, int]:
    most = (1 << prefix) - 1
    value, place = block[place] & most, place + 1
    if value < most:
        return value, place
    shift = 0
    while True:
        value += (block[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not block[place - 1] & 0x80:
            return value, place


def _read_text(block: bytes, place: int) -> tuple[bytes, bool, int]:
    huffman = bool(block[place] & 0x80)
    length, place = _read_integer(block, place, 7)
    return block[place : place + length], huffman, place + length
