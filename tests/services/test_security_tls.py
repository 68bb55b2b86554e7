"""TLS and mutual TLS of both servers and the client, and renewing certificates under load."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from bundle_fixture import free_port_settings
from certificate_fixture import YESTERDAY, Authority, Pair, secret_file, server_settings
from cryptography import x509
from embedding_fixture import ControlledModel, client_of, encoder_around, settings_with
from patience import PATIENCE
from rounds import rounds

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError, LlmgrError
from services.client import ClientSecurity, EmbeddingClient, RankingClient, ServiceError
from services.client import connection as client_connection
from services.client.calls import RetryPolicy
from services.embedding.background import serve_in_background
from services.ranking.server import RankingServer
from services.security import server_certificate
from services.security.certificate_dates import not_after
from services.security.server_certificate import CertificateFiles, CheckedCertificate
from services.security.watched_files import read_secret

NO_RETRIES = RetryPolicy(attempts=1)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def served_serial(address: str) -> int:
    """Serial number of the certificate that a server shows."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=PATIENCE)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial_of(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def ranks(address: str, security: ClientSecurity | None = None) -> bool:
    with RankingClient(address, timeout=PATIENCE, retry=NO_RETRIES, security=security) as client:
        return len(client.rank(["item-1"]).items) == 20


def fails(address: str, security: ClientSecurity | None = None) -> bool:
    with pytest.raises(ServiceError) as raised:
        ranks(address, security)
    return raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_server_with_a_certificate_speaks_tls_only(serve_ranking, authority, tmp_path):
    server = serve_ranking(security=server_settings(authority.issue("server")))
    assert ranks(server.address, authority.client())
    assert fails(server.address)
    other = Authority(tmp_path, "other")
    assert fails(server.address, other.client())


def test_old_tls_versions_are_refused(serve_ranking, authority):
    server = serve_ranking(security=server_settings(authority.issue("server")))
    context = ssl.create_default_context(cafile=str(authority.file))
    # Our side would offer anything; what is left is what the server takes.
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
        assert context.wrap_socket(raw, server_hostname="127.0.0.1").version() in {"TLSv1.2", "TLSv1.3"}
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw,
        pytest.raises(ssl.SSLError, match=r"EOF|VERSION"),
    ):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


@rounds(10)
def test_fault_wrong_certificate_is_refused_by_mutual_tls(serve_ranking, authority, tmp_path):
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    server = serve_ranking(security=server_settings(authority.issue("server"), clients))
    assert ranks(server.address, authority.client(clients.issue("shop")))
    assert fails(server.address, authority.client())
    assert fails(server.address, authority.client(strangers.issue("stranger")))


@rounds(10)
def test_fault_expired_certificate_of_a_client_is_refused_by_both_sides(serve_ranking, authority, tmp_path):
    server = serve_ranking(security=server_settings(authority.issue("server"), authority))
    expired = authority.issue("expired", not_after=YESTERDAY)
    with pytest.raises(InputError, match="expired"):
        RankingClient(server.address, security=authority.client(expired))
    read = [path.read_bytes() for path in (authority.file, expired.key, expired.certificate)]
    with (
        RankingClient(
            server.address, timeout=PATIENCE, retry=NO_RETRIES, credentials=grpc.ssl_channel_credentials(*read)
        ) as client,
        pytest.raises(ServiceError) as raised,
    ):
        client.rank(["item-1"])
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_fault_no_certificate_is_refused_by_the_embedding_server_too(tmp_path, authority):
    security = server_settings(authority.issue("server"), authority)
    overrides = [f"serve.security.{name}={value}" for name, value in security.items()]
    with serve_in_background(encoder_around(ControlledModel()), tmp_path / "store", settings_with(*overrides)) as listening:
        with EmbeddingClient(listening.address, timeout=PATIENCE, security=authority.client(authority.issue("own"))) as client:
            assert client.embed(Item("a", title="lamp")).sequence == 1
        with client_of(listening) as client, pytest.raises(ServiceError, match="UNAVAILABLE"):
            client.get("a")


def test_a_certificate_swapped_under_load_fails_no_call(serve_ranking, authority, monkeypatch):
    """Server and client certificates are renewed five times, while connections are opened all the time."""
    monkeypatch.setattr(client_connection, "SECONDS_BETWEEN_LOOKS", 0.01)
    pair, own = authority.issue("server"), authority.issue("own")
    server = serve_ranking(security=server_settings(pair, authority))
    security, failures, calls = authority.client(own), [], [0, 0]
    stop = threading.Event()

    def client() -> RankingClient:
        return RankingClient(server.address, timeout=PATIENCE, retry=NO_RETRIES, security=security)

    def ask(number: int, kept: RankingClient) -> None:
        while not stop.is_set():
            try:
                kept.rank(["item-1"], top_k=1)
                if number:
                    with client() as fresh:
                        fresh.rank(["item-1"], top_k=1)
            except InputError:
                continue  # the two files of `own` did not belong together just then; a program starts again
            except Exception as error:
                failures.append(error)
            calls[number] += 1
        kept.close()

    # Opened before anything is renewed: here nobody starts again.
    threads = [threading.Thread(target=ask, args=(number, client()), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    serials = set()
    for _ in range(5):
        authority.renew(pair)
        authority.renew(own)
        before = calls[1]
        while calls[1] < before + 3 and not failures:
            time.sleep(0.01)
        serials.add(server._security._certificate._served.chain)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(serials) == 5
    assert reloads(server, "certificate", "taken") >= 5


def test_a_renewal_between_two_reads_gives_no_pair_of_old_and_new(authority, monkeypatch):
    pair = authority.issue("server")
    renewals = [pair]

    def renewed_before_the_key(path):
        if renewals:
            authority.renew(renewals.pop())
        return read_secret(path)

    monkeypatch.setattr(server_certificate, "read_secret", renewed_before_the_key)
    read = CheckedCertificate.read(CertificateFiles(pair.certificate, pair.key))
    assert (read.chain, read.private_key) == (pair.certificate.read_bytes(), pair.key.read_bytes())


def reloads(server: RankingServer, file: str, outcome: str) -> float:
    return server.registry.get_sample_value("llmgr_security_reloads_total", {"file": file, "outcome": outcome})


def test_connections_that_stand_outlive_a_renewal(serve_ranking, authority):
    pair = authority.issue("server")
    server = serve_ranking(security=server_settings(pair))
    with RankingClient(server.address, timeout=PATIENCE, security=authority.client()) as client:
        client.rank(["item-1"])
        first = serial_of(pair)
        authority.renew(pair)
        assert serial_of(pair) != first
        assert served_serial(server.address) == serial_of(pair)
        client.rank(["item-1"])


@pytest.mark.parametrize("damage", ["expired", "key of another", "no PEM", "missing", "open key"])
def test_a_renewal_that_is_of_no_use_leaves_the_old_certificate(serve_ranking, authority, damage):
    pair = authority.issue("server")
    server = serve_ranking(security=server_settings(pair))
    first = serial_of(pair)
    if damage == "expired":
        authority.renew(pair, not_after=YESTERDAY)
    elif damage == "key of another":
        pair.key.write_bytes(authority.issue("other").key.read_bytes())
    elif damage == "no PEM":
        pair.certificate.write_bytes(b"\x00\xff")
    elif damage == "missing":
        pair.certificate.unlink()
    else:
        pair.key.chmod(0o644)
    assert served_serial(server.address) == first
    assert ranks(server.address, authority.client())
    assert reloads(server, "certificate", "refused") == 1
    authority.renew(pair)
    assert served_serial(server.address) == serial_of(pair) != first


def test_an_open_stream_survives_the_renewal_of_the_clients_certificate(tmp_path, authority, monkeypatch):
    monkeypatch.setattr(client_connection, "SECONDS_BETWEEN_LOOKS", 0.0)
    own = authority.issue("own")
    security = server_settings(authority.issue("server"), authority)
    overrides = [f"serve.security.{name}={value}" for name, value in security.items()]
    with (
        serve_in_background(encoder_around(ControlledModel()), tmp_path / "store", settings_with(*overrides)) as listening,
        EmbeddingClient(listening.address, timeout=PATIENCE, security=authority.client(own)) as client,
    ):
        client.embed(Item("a", title="lamp"))
        changes = client.changes(timeout=PATIENCE)
        assert next(changes).item_id == "a"
        before = client.channel
        authority.renew(own)
        client.embed(Item("b", title="chair"))
        assert client.channel is not before
        assert next(changes).item_id == "b"
        changes.close()


@pytest.mark.parametrize("days", [1, 400, 40_000])
def test_the_end_of_validity_is_read(authority, days):
    """Both forms of dates: two digits of the year before 2050, four from then on."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    pair = authority.issue("dated", not_after=end)
    assert not_after(pair.certificate.read_bytes()) == end


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("share_port", [False, True])
def test_another_interface_than_loopback_needs_a_certificate_or_a_word(catalogue, host, share_port):
    """With several workers, too."""
    settings = free_port_settings(host=host)
    with pytest.raises(LlmgrError, match="plain text") as raised:
        RankingServer(catalogue.bundle, catalogue.store, settings, share_port=share_port)
    assert "--plain-text" in raised.value.hint


def test_plain_text_and_missing_tokens_on_an_open_interface_are_warned_of(catalogue, capfd, authority):
    for security in ({"plain_text": True}, server_settings(authority.issue("server"))):
        with RankingServer(catalogue.bundle, catalogue.store, free_port_settings(host="0.0.0.0", security=security)):
            pass
    out = "".join(capfd.readouterr())
    assert out.count("listening_in_plain_text") == 1
    assert out.count("listening_without_tokens") == 2


def test_a_server_does_not_start_with_files_of_no_use(catalogue, authority, tmp_path):
    pair = authority.issue("server")

    def start(**security):
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings(security=server_settings(pair) | security))

    with pytest.raises(InputError, match="not the key"):
        start(private_key=str(authority.issue("other").key))
    with pytest.raises(InputError, match=r"chmod 600|other users"):
        start(tokens=str(secret_file(tmp_path / "open-tokens", "read a " + "x" * 40, mode=0o644)))
    with pytest.raises(InputError, match="No such file"):
        start(certificate=str(tmp_path / "none.pem"))
    authority.renew(pair, not_after=YESTERDAY)
    with pytest.raises(InputError, match="expired"):
        start()


def test_a_client_sends_no_token_in_plain_text_to_another_machine(tmp_path):
    token = secret_file(tmp_path / "token", "t" * 40)
    for address in ("rankers:50052", "10.0.0.7:50052", "dns:///rankers:50052"):
        with pytest.raises(InputError, match="plain text"):
            RankingClient(address, security=ClientSecurity(token_file=token))
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1", "ipv4:127.0.0.1:1"):
        RankingClient(address, security=ClientSecurity(token_file=token)).close()
