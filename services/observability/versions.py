"""Which program and which model a process runs, as metrics whose labels say it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping

import grpc
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmgr_core import __version__


class Versions(Collector):
    """llmgr_build_info and llmgr_model_info, both always 1.

    Args:
        service: "embedding" or "ranking".
        model: names and versions of what is served now; asked whenever the page is read.
    """

    def __init__(self, service: str, model: Callable[[], Mapping[str, str]]) -> None:
        self._service = service
        self._model = model

    def collect(self) -> Iterable[Metric]:
        build = {
            "service": self._service,
            "version": __version__,
            "python": platform.python_version(),
            "grpc": grpc.__version__,
        }
        yield _labels_of("llmgr_build_info", "The program", build)
        yield _labels_of("llmgr_model_info", "What is served", {"service": self._service, **self._model()})


def _labels_of(name: str, text: str, values: Mapping[str, str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(values))
    family.add_metric(list(values.values()), 1.0)
    return family
