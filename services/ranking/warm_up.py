"""The first calls of a server, made by itself before it says SERVING: what gRPC, protobuf and the threads set up on first use
is then set up, and a server that cannot answer does not say that it can."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from llmgr_core.errors import LlmgrError
from llmgr_core.settings.serve import ServeSettings
from services.contract import ranking_service_pb2 as messages
from services.ranking.current_ranker import CurrentRanker
from services.ranking.metrics import METHODS, RankingMetrics
from services.ranking.service import RankingMethods
from services.ranking.watchdog import Watchdog
from services.security.scopes import HEALTH
from services.server.admission import BoundedPool, run_on
from services.server.observation import CallObserver
from services.server.sync_methods import unary_method

CALLS = 5
CLICKS = 5
SECONDS = 30.0
LEAVING_SECONDS = 0.2


class WarmUp(grpc.GenericRpcHandler):
    """RankSession under a name that nobody else knows, for as long as the warm-up lasts, counted nowhere.

    The calls come by a socket file that only this user can open, which also reaches this process and no other one on the same
    port, and needs no client certificate. Their method's name stands among those that ask for no token.

    Args:
        server: not started yet; gets the handler and the socket.
        current: what ranks.
        settings: limits.
        watchdog, pool: the server's own.
    """

    def __init__(
        self,
        server: grpc.Server,
        current: CurrentRanker,
        settings: ServeSettings,
        watchdog: Watchdog,
        pool: BoundedPool,
    ) -> None:
        self._current = current
        self._path: str | None = HEALTH + secrets.token_hex(16)
        registry = CollectorRegistry()
        answers = RankingMethods(current, settings, RankingMetrics(registry), watchdog, pool)
        observer = CallObserver("ranking", registry, METHODS, log_successes=False)
        self._handler = unary_method("RankSession", messages.RankSessionRequest, answers.rank_session, observer)
        run_on(self._handler, pool)
        self._pool = pool
        self._directory = Path(tempfile.mkdtemp(prefix="llmgr-"))
        self._address = f"unix:{self._directory / 'warm-up'}"
        try:
            server.add_generic_rpc_handlers((self,))
            server.add_insecure_port(self._address)
        except RuntimeError:
            self.end()
            raise LlmgrError(
                f"cannot listen on a socket file in {self._directory.parent}", "set TMPDIR to a directory with a short name"
            ) from None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handler if handler_call_details.method == self._path else None

    def run(self) -> None:
        """Make the calls; the server must be running.

        Raises:
            LlmgrError: it does not answer.
        """
        snapshot = self._current.ranker.snapshot
        clicks = [snapshot.item_id(index) for index in range(min(CLICKS, snapshot.num_items))]
        try:
            with grpc.insecure_channel(self._address) as channel:
                call: Callable[..., bytes] = channel.unary_unary(self._path or "")
                for number in range(CALLS):
                    request = messages.RankSessionRequest(item_ids=clicks[: number + 1])
                    messages.RankSessionResponse.FromString(call(request.SerializeToString(), timeout=SECONDS))
        except grpc.RpcError as error:
            raise LlmgrError(
                f"the server does not answer its own first call: {error}", "the lines before this one in the log say why"
            ) from None
        finally:
            self.end()
        # A call leaves its place a moment after its reply has come.
        end = time.monotonic() + LEAVING_SECONDS
        while self._pool.admitted and time.monotonic() < end:
            time.sleep(0.001)

    def end(self) -> None:
        """Forget the method and take the socket away."""
        self._path = None
        shutil.rmtree(self._directory, ignore_errors=True)
