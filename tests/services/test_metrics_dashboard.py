"""The dashboard asks only for what running servers export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bundle_fixture import free_port_settings, make_catalogue
from certificate_fixture import WRITE_TOKEN, Authority, secret_file, server_settings, token_file
from embedding_fixture import ControlledModel, encoder_around, settings_with
from metrics_page import series
from patience import PATIENCE
from prometheus_client import CollectorRegistry

from llmgr_core.data.item import Item
from llmgr_core.settings import load_settings
from services.client import ClientSecurity, EmbeddingClient, RankingClient
from services.embedding.background import serve_in_background
from services.observability import merged_metrics
from services.observability.dashboard import dashboard
from services.observability.merged_metrics import MergedMetrics
from services.ranking.server import RankingServer
from services.replication.metrics import PublisherMetrics, ReplicaMetrics
from services.server.observation import MetricsPage

COMMITTED = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
METRIC = re.compile(r"\b(?:llmgr|process)_\w+")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
SELECTOR = re.compile(r"\w\{([^}]*)\}")
LEGEND_LABEL = re.compile(r"\{\{(\w+)\}\}")
# Prometheus adds the first; the second is there with several workers only.
ADDED = {"instance", "worker"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Label names by metric, of both servers with everything turned on, and of what replicates a store."""
    directory = tmp_path_factory.mktemp("servers")
    catalogue, pair = make_catalogue(directory), Authority(directory).issue("server")
    security = server_settings(pair, tokens=token_file(directory))
    overrides = [f"serve.security.{name}={value}" for name, value in security.items()]
    with (
        pytest.MonkeyPatch.context() as patched,
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings(security=security, metrics_port=0)) as ranking,
        serve_in_background(
            encoder_around(ControlledModel()), directory / "own", settings_with(*overrides, "embed.metrics_port=0")
        ) as embedding,
    ):
        # Some series appear with the first call.
        own = secret_file(directory / "token", WRITE_TOKEN)
        trusted = ClientSecurity(Path(security["certificate"]).with_name("ca.pem"), token_file=own)
        with RankingClient(ranking.address, timeout=PATIENCE, security=trusted) as client:
            client.rank(["item-0"])
        with EmbeddingClient(embedding.address, timeout=PATIENCE, security=trusted) as client:
            client.embed(Item("a", title="lamp"))
        patched.setattr(merged_metrics, "PAGE_SECONDS", PATIENCE)
        registry = CollectorRegistry()
        registry.register(MergedMetrics(lambda: {0: ranking.metrics_port}))
        merged = MetricsPage(registry, 0)
        pages = [series(port) for port in (merged.port, embedding.metrics_port)]
        merged.close()
    for metrics in (PublisherMetrics, ReplicaMetrics):
        registry = CollectorRegistry()
        made = metrics(registry)
        if isinstance(made, PublisherMetrics):
            made.watch(lambda: 0.0)
        page = MetricsPage(registry, 0)
        pages.append(series(page.port))
        page.close()
    names: dict[str, set[str]] = {}
    for page in pages:
        for name, found in page.items():
            names.setdefault(name, set()).update(*(labels for labels, _ in found))
    return names


def queries() -> list[tuple[str, str, str]]:
    """Title, PromQL and legend of everything that is asked for."""
    panels = json.loads(COMMITTED.read_text())["panels"]
    return [(one["title"], target["expr"], target["legendFormat"]) for one in panels for target in one.get("targets", [])]


def test_the_committed_dashboard_is_the_generated_one():
    generated = json.dumps(dashboard(), indent=1) + "\n"
    assert COMMITTED.read_text() == generated, "python -m services.observability.dashboard > docs/grafana-dashboard.json"


def test_every_metric_of_the_dashboard_is_exported_by_a_running_server(exported):
    asked = {(title, name) for title, query, _ in queries() for name in METRIC.findall(query)}
    assert len(asked) > 40
    missing = sorted((title, name) for title, name in asked if name not in exported)
    assert missing == []


def test_every_label_of_the_dashboard_is_one_of_its_metrics(exported):
    for title, query, legend in queries():
        has = set().union(*(exported[name] for name in METRIC.findall(query))) | ADDED
        asked = {label.strip() for group in GROUPING.findall(query) for label in group.split(",")}
        chosen = [part for inner in SELECTOR.findall(query) for part in inner.split(", ")]
        asked |= {re.split("[=!~]", part)[0].strip() for part in chosen}
        asked |= set(LEGEND_LABEL.findall(legend))
        assert asked <= has, (title, asked - has)


def test_everything_the_brief_of_an_operator_names_is_on_the_dashboard():
    text = COMMITTED.read_text()
    for name in (
        "llmgr_ranking_queue_seconds",
        "llmgr_ranking_stage_seconds",
        "llmgr_embedding_known_texts_total",
        "llmgr_ranking_sequence_lag",
        "llmgr_ranking_shed_total",
        "llmgr_model_info",
        "llmgr_build_info",
        "llmgr_replica_sequence_lag",
        "llmgr_publisher_connected",
    ):
        assert name in text


def test_panels_do_not_overlap():
    taken = set()
    for panel in json.loads(COMMITTED.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_operations_page_names_only_what_is_exported(exported):
    page = (COMMITTED.parent / "operations.md").read_text()
    named = {name for name in METRIC.findall(page) if not name.endswith("_")}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported}
    assert len(named) > 15
    assert named <= families | set(exported)


def test_the_settings_on_the_operations_page_can_be_used(tmp_path):
    page = (COMMITTED.parent / "operations.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    config = tmp_path / "serve.toml"
    config.write_text(block)
    assert load_settings(config).serve.security.tokens == "/etc/llmgr/tokens"


def test_operators_are_told_where_a_store_cannot_be_read_or_a_process_is_gone():
    """The lag is not a number then, and compares with nothing."""
    rows = re.findall(
        r"^\| ([a-z ]+) \| `(.+)` \| (?:at once|\d+ min) \|$", (COMMITTED.parent / "operations.md").read_text(), re.MULTILINE
    )
    alerts = dict(rows)
    assert METRIC.findall(alerts["rankings are stale"]) == ["llmgr_ranking_last_follow_timestamp_seconds"]
    assert "up{" in alerts["a process is gone"]
    assert METRIC.findall(alerts["a process is gone"]) == ["llmgr_worker_up"]
    assert set(METRIC.findall(alerts["faults of ours"])) == {"llmgr_ranking_calls_total", "llmgr_embedding_calls_total"}
