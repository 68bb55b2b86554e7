"""Write the Grafana dashboard: ``python -m services.observability.dashboard > docs/grafana-dashboard.json``.

A script rather than a saved export: what a panel asks for stands in one readable line, and a test compares every name with
what the servers really export.
"""

from __future__ import annotations

import json
from typing import Any

from services.observability.dashboard_rows import ROWS, Panel
from services.observability.replication_rows import REPLICATION

COLUMNS, WIDTH, HEIGHT = 24, 8, 7


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for name, row in (ROWS | REPLICATION).items():
        panels.append({"type": "row", "title": name, "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}, "panels": []})
        top += 1
        for place, panel in enumerate(row):
            x, y = place % (COLUMNS // WIDTH) * WIDTH, top + place // (COLUMNS // WIDTH) * HEIGHT
            panels.append(_panel(panel, {"x": x, "y": y, "w": WIDTH, "h": HEIGHT}))
        top += -(-len(row) // (COLUMNS // WIDTH)) * HEIGHT
    for number, one in enumerate(panels, 1):
        one["id"] = number
    return {
        "title": "llmgr",
        "uid": "llmgr",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "tags": ["llmgr"],
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                {
                    "name": "instance",
                    "type": "query",
                    "label": "Instance",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "query": {"query": "label_values(llmgr_build_info, instance)", "refId": "instances"},
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels,
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"textMode": "name"} if panel.kind == "stat" and "Versions" in panel.title else {},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": source, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
