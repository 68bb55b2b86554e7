"""A Ray cluster to read texts on: joined at an address, or started on this machine for one command."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from llmgr_core.errors import InputError, LlmgrError

LOCAL, AUTO = "local", "auto"
# Ray's own default is a third of the memory; what is under way here is a few megabytes for each actor.
OBJECT_STORE_BYTES = 256 << 20
ANSWER_S = 5.0
CPUS_PER_ACTOR = 4
LOGS = "try again when the machine is less busy (Ray gives up after 30 s); its logs are in /tmp/ray/session_latest/logs"
WAY_OUT = "`llmgr embed --ray` alone starts Ray on this machine; `ray start` makes this machine a node of a cluster"


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster gives to work.

    Attributes:
        cpus, gpus: as Ray counts them.
    """

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class ActorPlan:
    """How many actors read, and what each of them has.

    Attributes:
        actors: of them, each with a model of its own.
        device: "cuda" or "cpu".
        gpus, cpus: what Ray sets aside for each.
        threads: of torch in each; 0 leaves torch's own choice.
    """

    actors: int
    device: str
    gpus: int
    cpus: float
    threads: int

    @classmethod
    def of(cls, nodes: Sequence[Node], actors: int | None, device: str, threads: int) -> ActorPlan:
        """One actor for each GPU; on machines without, one for every four CPUs, and the CPUs shared out.

        Args:
            nodes: of the cluster.
            actors: how many are wanted, None for that default.
            device: setting engine.device.
            threads: setting threads; 0 gives each actor as many as it has CPUs.

        Raises:
            InputError: more than the cluster has, or a device that is one particular GPU.
        """
        gpus = sum(int(node.gpus) for node in nodes)
        if device not in {"auto", "cpu", "cuda"}:
            raise InputError(
                f"engine.device={device!r} is one device, and with --ray every actor has one of its own",
                "set engine.device to auto, cuda or cpu",
            )
        if device == "cuda" and not gpus:
            raise InputError("engine.device='cuda', but the Ray cluster has no GPU", "set engine.device to auto or cpu")
        if gpus and device != "cpu":
            if actors is not None and actors > gpus:
                raise InputError(
                    f"--ray-actors {actors}: each needs a GPU, and the Ray cluster has {gpus}", f"ask for {gpus} at most"
                )
            return cls(actors or gpus, "cuda", 1, 1.0, threads)
        cpus = [node.cpus for node in nodes if node.cpus]
        if not cpus:
            raise InputError("the Ray cluster has no CPU to work on", "start its nodes without --num-cpus=0")
        actors = actors or sum(max(1, int(count) // CPUS_PER_ACTOR) for count in cpus)
        share = _share(cpus, actors)
        return cls(actors, "cpu", 0, share, threads or max(1, int(share)))


@contextmanager
def ray_cluster(address: str) -> Iterator[list[Node]]:
    """Join a cluster, or start one on this machine and stop it afterwards.

    A cluster that is started here has no dashboard, sends no usage statistics, and answers only those who know a token that is
    made for it and never written down, since Ray listens on every interface.

    Args:
        address: "local" to start one; "auto" for the one that this machine is a node of; HOST:PORT of its head.

    Raises:
        LlmgrError: Ray is not installed, or no cluster answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = _import_ray()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    elif address != AUTO:
        _require_answer(address)
    try:
        ray.init(address=address, **options)
    # Ray has no common class for what goes wrong here; a node that does not come up in time is a bare Exception.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if address == LOCAL:
            raise LlmgrError(f"Ray does not start on this machine: {reason}", LOGS) from error
        raise LlmgrError(f"no Ray cluster at {address!r}: {reason}", WAY_OUT) from error
    # Ray tells of actors that died on standard output, which is for the result; also while it is shut down.
    with redirect_stdout(sys.stderr):
        try:
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield [Node(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive]
        finally:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise LlmgrError(
            f"--ray needs the package ray ({error})", "pip install 'llmgr[ray]'; without --ray this machine does it alone"
        ) from None
    return ray


def _require_answer(address: str) -> None:
    """Ray itself waits a minute before it says that nobody is there."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or not host or not port.isdigit():
        raise InputError(
            f"--ray {address}: neither auto nor HOST:PORT of a cluster's head",
            "run the command on a node of the cluster (`ray start --address=HEAD:6379`); Ray Client is not supported",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise LlmgrError(f"no Ray cluster at {address!r}: {error}", WAY_OUT) from None


def _share(cpus: Sequence[float], actors: int) -> float:
    """CPUs of each actor, so that all of them find room on the nodes; a whole number, or a part of one."""
    share = sum(cpus) / actors
    if share < 1:
        # Parts smaller than a hundredth are more actors on a CPU than anybody means.
        while sum(int(count / share) for count in cpus) < actors and share > 0.01:
            share *= 0.9
        return share
    whole = int(share)
    while whole > 1 and sum(int(count) // whole for count in cpus) < actors:
        whole -= 1
    return float(whole)
