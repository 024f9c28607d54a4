"""The shipped alert rules: each says what to do, is documented, and is tried by promtool. What metrics they may ask for is
in ``tests/integration/test_alert_metrics.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml  # type: ignore[import-untyped]

from actors.domain.outcomes import ExceptionKind
from gateway.cli.main import app

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES_FILE = FOLDER / "stockade.rules.yml"
TESTS_FILE = FOLDER / "stockade.rules.test.yml"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "alerts.md"

SEVERITIES = {"critical", "warning", "info"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]


RULES = rules()
NAMES = [rule["alert"] for rule in RULES]


def test_no_alert_comes_twice():
    assert len(set(NAMES)) == len(NAMES) > 20


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert all(len(text) > 10 for text in rule["annotations"].values())
    assert len(rule["annotations"]["summary"]) <= 120


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_is_tried_silent_and_firing(rule: dict[str, Any]):
    tried = {test["name"]: test for test in yaml.safe_load(TESTS_FILE.read_text())["tests"]}[rule["alert"]]
    samples = [one["exp_samples"] for one in tried["promql_expr_test"]]
    assert [] in samples, "never silent"
    assert any(samples), "never firing"
    assert all(f'alertname="{rule["alert"]}"' in one["expr"] for one in tried["promql_expr_test"])
    severity = rule["labels"]["severity"]
    assert samples[-1] == [{"labels": f'{{severity="{severity}"}}', "value": 1}]


def test_kinds_of_exceptions_that_rules_name_exist():
    known = {kind.name.lower() for kind in ExceptionKind}
    named = {
        kind
        for rule in RULES
        for matched in re.findall(r'kind=~?"([^"]+)"', rule["expr"])
        for kind in matched.split("|")
    }
    assert named <= known


def test_the_document_has_every_alert_and_every_kind_of_exception():
    text = DOCUMENT.read_text()
    assert [name for name in NAMES if f"`{name}`" not in text] == []
    assert [kind.name for kind in ExceptionKind if f"`{kind.name.lower()}`" not in text] == []


def test_every_command_that_a_runbook_names_exists_with_its_options():
    known = dict(commands(typer.main.get_command(app)))
    for rule in RULES:
        for text in rule["annotations"].values():
            for words, rest in re.findall(
                r"stockade ([a-z]+(?: [a-z]+)?)((?: [A-Z]+| {{.*?}}| --[a-z-]+| [a-z_]+)*)", text
            ):
                named = words if words in known else words.split()[0]
                assert named in known, f"{rule['alert']}: stockade {words}"
                assert set(re.findall(r"--[a-z-]+", rest)) <= known[named], f"{rule['alert']}: stockade {words}{rest}"


def commands(group: Any, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command of the command line, with its options."""
    for name, command in getattr(group, "commands", {}).items():
        words = f"{path} {name}".strip()
        yield words, {option for parameter in command.params for option in parameter.opts}
        yield from commands(command, words)


def test_promtool_agrees():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus); .ci/run fetches it")
    for command in (["check", "rules", str(RULES_FILE)], ["test", "rules", str(TESTS_FILE)]):
        ended = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
