"""Every metric that a shipped alert rule asks for is exported by the service, with the labels that the rule uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from actors.domain.consumer_state import Consumer
from actors.runtime.host_metrics import HostCollector
from actors.runtime.node_pages import NodeView, own_metrics
from actors.runtime.processes import ProcessId
from actors.runtime.wiring import open_data_journal, start_in_process
from gateway.metrics import Metrics
from gateway.webhooks.metrics import WebhookMetrics
from tests.integration.change_world import settings

RULES_FILE = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "stockade.rules.yml"
DASHBOARD_FILE = RULES_FILE.parents[1] / "grafana" / "stockade.json"
RULES = [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]
OF_SCRAPING = {"job", "instance", "process"}  # Prometheus' own, and the merged page's

Exported = dict[str, set[str]]


@pytest.fixture
async def exported(tmp_path: Path) -> Exported:
    """Name of a sample → its labels, of all processes of a node."""
    host = CollectorRegistry()
    chosen = settings(data_dir=tmp_path)
    node = await start_in_process(chosen, lambda: open_data_journal(chosen, tmp_path, print))
    shard = node.host.engine.books.shards[0]
    known = Consumer("erp")  # metrics of those that there are
    node.host.engine.books.consumers["erp"] = shard.consumers["erp"] = known
    node.host.statistics.clock_skew.note("journal", 1)
    host.register(HostCollector(node.host.status, node.host.engine.books, 0))
    found = dict(exported_by(host))
    await node.stop()
    found |= dict(exported_by(Metrics(name="g", version="1", build="", sources=frozenset()).registry))
    found |= dict(exported_by(WebhookMetrics().registry))
    for family in text_string_to_metric_families(own_metrics(NodeView(ProcessId(1, 1), restarts={"host": 1}))):
        found |= {sample.name: set(sample.labels) for sample in family.samples}
    return found


async def test_every_alert_asks_for_what_the_service_exports(exported: Exported):
    for rule in RULES:
        asked = list(selectors(rule["expr"]))
        assert asked, rule["alert"]
        for name, labels in asked:
            assert name in exported, f"{rule['alert']}: {name} is exported by nobody"
            assert labels <= exported[name] | OF_SCRAPING, f"{rule['alert']}: {name} has only {exported[name]}"
        known = set().union(*(exported[name] for name, _ in asked)) | OF_SCRAPING
        for text in (rule["expr"], *rule["annotations"].values()):
            assert used_labels(text) <= known, rule["alert"]


async def test_every_panel_of_the_dashboard_shows_what_the_service_exports(exported: Exported):
    panels = json.loads(DASHBOARD_FILE.read_text())["panels"]
    assert len(panels) > 10
    for panel in panels:
        for target in panel["targets"]:
            asked = list(selectors(target["expr"]))
            assert asked, panel["title"]
            for name, labels in asked:
                assert name in exported, f"{panel['title']}: {name} is exported by nobody"
                shown = used_labels(target["expr"]) | set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert labels | shown <= exported[name] | OF_SCRAPING, panel["title"]


def exported_by(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    """Names and label names, also of what has no sample yet."""
    for collector in list(registry._collector_to_names):
        for family in collector.collect():
            names = {
                "counter": [f"{family.name}_total"],
                "histogram": [family.name + suffix for suffix in ("_bucket", "_sum", "_count")],
                "info": [f"{family.name}_info"],
            }.get(family.type, [family.name])
            labels = set(getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ()))
            for name in names:
                yield name, labels | ({"le"} if name.endswith("_bucket") else set())


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics of an expression with the labels that are matched."""
    for name, matchers in re.findall(r"\b(stockade_\w+)(?:\{([^}]*)\})?", expr):
        yield name, {label for label, _ in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers)}


def used_labels(text: str) -> set[str]:
    """Labels that an expression groups by, or a template shows."""
    grouped = {label.strip() for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text) for label in group.split(",")}
    return grouped | set(re.findall(r"\$labels\.(\w+)", text))
