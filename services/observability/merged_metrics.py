"""One page for several worker processes: the series of each, with a label that tells which.

Workers keep series of their own rather than sharing files: a sum hides the one worker that lags, and Prometheus can add them up
itself. A worker that is restarted begins at 0 again, which rate() knows how to read.
"""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

WORKER_LABEL = "worker"
PAGE_SECONDS = 2.0
# Never by way of a proxy that the environment names: the pages are on this machine alone.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class MergedMetrics(Collector):
    """Reads the workers' own pages whenever it is read itself.

    Args:
        ports: loopback ports of the workers' pages by worker, asked each time, for a restarted worker has another; None for
            one that has none yet.
    """

    def __init__(self, ports: Callable[[], Mapping[int, int | None]]) -> None:
        self._ports = ports

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("llmgr_worker_up", "Whether a worker's own page could be read", labels=[WORKER_LABEL])
        merged: dict[str, Metric] = {}
        for worker, port in sorted(self._ports().items()):
            text = None if port is None else _page(port)
            up.add_metric([str(worker)], float(text is not None))
            for family in text_string_to_metric_families(text or ""):
                into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    if not math.isnan(sample.value):
                        into.add_sample(sample.name, {**sample.labels, WORKER_LABEL: str(worker)}, sample.value)
        yield up
        yield from merged.values()


def _page(port: int) -> str | None:
    """Text of a worker's page; None where it cannot be had, as between the death of one worker and the start of the next."""
    try:
        with _direct.open(f"http://127.0.0.1:{port}/metrics", timeout=PAGE_SECONDS) as reply:
            text: str = reply.read().decode("utf-8")
            return text
    except (OSError, urllib.error.URLError):
        return None
