"""Publisher and replica as the programs a user starts: killed, guarded by a password and TLS, promoted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificate_fixture import Authority
from click.testing import CliRunner
from patience import PATIENCE, free_port, wait_until
from redis_fixture import (
    RedisServer,
    Replication,
    insert,
    is_copy,
    redis,
    replication,
    require_redis,
    running,
)

from llmgr_core.errors import LlmgrError
from llmgr_core.settings.replication import ReplicationSettings
from llmgr_core.store import StoreWriter
from llmgr_core.store.verification import verify_store
from services.replication.redis_link import connect

__all__ = ["redis", "replication"]
MAIN = "from llmgr_core.command_line.main import main; main()"


@contextmanager
def replica_process(directory: Path, store: Path, redis: RedisServer, *options: str):
    ready = directory / "replica.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-c", MAIN, "serve", "replica", "--store", str(store), "--redis", redis.url]
    command += ["--metrics-port", "-1", "--ready-file", str(ready), *options]
    with (directory / "replica.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(ready.exists, "the replica did not start")
            yield process, json.loads(ready.read_text())
        finally:
            process.kill()


def test_a_replica_that_is_killed_amid_changes_goes_on_and_loses_nothing(replication, redis, catalogue, tmp_path):
    replica = tmp_path / "replica"
    with catalogue.writer() as writer:
        both = replication()
        both.publish(catalogue.store)
        with replica_process(tmp_path, replica, redis) as (process, facts):
            assert facts["epoch"] == writer.epoch
            for number in range(0, 60, 2):
                insert(writer, number, 2)
                if number == 40:
                    process.kill()
        assert process.wait() == -9
        assert not is_copy(replica, catalogue.store)
        with replica_process(tmp_path, replica, redis) as (process, facts):
            assert facts["sequence"] > 0
            insert(writer, 60, 2)
            wait_until(lambda: is_copy(replica, catalogue.store), "it did not go on")
            process.terminate()
            assert process.wait(PATIENCE) == 0
    assert verify_store(replica).sound
    assert (tmp_path / "replica.log").read_text().count("copy_in_place") == 1


def test_a_replica_can_be_made_a_store_of_its_own(replication, catalogue, tmp_path):
    from services.commands.store import command

    replica = tmp_path / "replica"
    with catalogue.writer() as writer:
        both = replication()
        both.publish(catalogue.store)
        follower = both.follow(replica)
        both.stop(follower)
        epoch = writer.epoch
    done = CliRunner().invoke(command, ["promote", "--store", str(replica)])
    assert done.exit_code == 0, done.output
    with StoreWriter.open(replica) as own:
        assert own.epoch == json.loads(done.output)["epoch"] != epoch
        assert insert(own, 0, 1) == 121


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text("tell-nobody-of-me\n")
    path.chmod(0o600)
    return path


def test_redis_with_tls_and_a_password(catalogue, tmp_path, password_file):
    require_redis()
    authority = Authority(tmp_path)
    pair = authority.issue("redis")
    authorities, secure = authority.file, free_port()
    tls = ["--tls-port", str(secure), "--tls-cert-file", str(pair.certificate), "--tls-key-file", str(pair.key)]
    tls += ["--tls-ca-cert-file", str(authorities), "--tls-auth-clients", "no"]
    server = RedisServer(tmp_path / "redis", "--requirepass", "tell-nobody-of-me", *tls)
    with running(server), catalogue.writer() as writer:
        url = f"rediss://localhost:{secure}/0"
        both = Replication(url, password_file=str(password_file), authorities=str(authorities))
        both.publish(catalogue.store)
        both.follow(tmp_path / "replica")
        insert(writer, 0, 3)
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "nothing came")
        both.close()
        stranger = Replication(url, authorities=str(authorities))
        follower = stranger.publish(catalogue.store)
        wait_until(lambda: follower.sample("llmgr_publisher_failures_total") > 0, "let in without a password")
        stranger.close()
        untrusting = Replication(url, password_file=str(password_file))
        follower = untrusting.publish(catalogue.store)
        wait_until(lambda: follower.sample("llmgr_publisher_failures_total") > 0, "an unknown authority was trusted")
        untrusting.close()


def test_a_password_never_shows(redis, catalogue, tmp_path, password_file, capfd):
    server = redis
    server.command("CONFIG", "SET", "requirepass", "another-one-entirely")
    with catalogue.writer():
        both = Replication(server.url, password_file=str(password_file))
        follower = both.publish(catalogue.store)
        wait_until(lambda: follower.sample("llmgr_publisher_failures_total") > 1, "a wrong password was taken")
        both.close()
    assert "tell-nobody" not in "".join(capfd.readouterr())
    with pytest.raises(ValueError, match="password_file"):
        ReplicationSettings(redis="redis://:tell-nobody-of-me@localhost/0")
    password_file.chmod(0o644)
    with pytest.raises(LlmgrError, match="other users"):
        connect(ReplicationSettings(password_file=str(password_file)))


def test_redis_on_another_machine_takes_tls_or_a_word_for_it():
    with pytest.raises(LlmgrError, match="plain text"):
        connect(ReplicationSettings(redis="redis://10.0.0.5:6379/0"))
    connect(ReplicationSettings(redis="redis://10.0.0.5:6379/0", plain_text=True))
    connect(ReplicationSettings(redis="rediss://10.0.0.5:6379/0"))


@pytest.mark.slow
def test_twenty_thousand_changes_are_caught_up_in_seconds(replication, catalogue, tmp_path):
    with catalogue.writer() as writer:
        both = replication()
        both.publish(catalogue.store)
        follower = both.follow(tmp_path / "replica")
        both.stop(follower)
        for number in range(0, 20_000, 500):
            insert(writer, number, 500)
        started = time.monotonic()
        both.follow(tmp_path / "replica")
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "it did not catch up")
        print(f"20,000 changes in {time.monotonic() - started:.2f} s")
