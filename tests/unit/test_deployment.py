"""What is handed to others to run the service: ``cluster.yaml`` and ``deploy/``. None of it may name a command, an option, a
setting, a file or a port that is not there; Ray's, systemd's and Kubernetes' own rules are asked where they can be had."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.main import get_command

from actors.runtime.setting_sources import names_of, variable_of
from actors.runtime.settings import Settings, load_settings
from gateway.cli.main import app

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
MANIFEST = ROOT / "deploy" / "kubernetes" / "kuberay.yaml"
EXPOSURE_MAX = 20  # of systemd-analyze security, in tenths: "OK" ends at 50, "SAFE" at 20
VARIABLES = set(map(variable_of, names_of(Settings))) | {"STOCKADE_CONFIG"}


def stockade_commands(text: str) -> Iterator[list[str]]:
    """The words behind every ``stockade`` that is called in a text, up to where the shell goes on."""
    for call in re.findall(r"(?:bin/|exec |ExecStart=\S*/)stockade ([^\n&;|>'\"]*)", text):
        yield shlex.split(call)


COMING = {"node", "drain"}  # commands that belong to the release but have not landed yet


def check_command(words: list[str]) -> None:
    """Raises AssertionError unless the command line knows the command and each of its options."""
    command: Any = get_command(app)
    if words[0] in COMING and words[0] not in command.commands:
        return
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"there is no such command: {words}"
    known = {option for parameter in command.params for option in parameter.opts}
    assert [word for word in words if word.startswith("-") and word not in known] == []


# --- Ray's cluster launcher --------------------------------------------------------------------------------------------------

ASK_RAY = """
import json, sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
config = prepare_config(yaml.safe_load(open(sys.argv[1])))
validate_config(config)
print(json.dumps(config))
"""


def as_ray_reads(file: Path) -> subprocess.CompletedProcess[str]:
    """Filled up and validated by the installed Ray's launcher, in a process of its own."""
    return subprocess.run([sys.executable, "-c", ASK_RAY, str(file)], capture_output=True, text=True, check=False)


def test_rays_launcher_accepts_the_cluster_file() -> None:
    answer = as_ray_reads(ROOT / "cluster.yaml")
    assert answer.returncode == 0, answer.stderr
    config = json.loads(answer.stdout)
    (workers,) = [kind for name, kind in config["available_node_types"].items()]
    assert workers["min_workers"] == workers["max_workers"] == len(config["provider"]["worker_ips"]) == 2


def test_rays_launcher_would_refuse_a_misspelt_key(tmp_path: Path) -> None:
    spoiled = tmp_path / "cluster.yaml"
    spoiled.write_text((ROOT / "cluster.yaml").read_text().replace("setup_commands", "setup_comands"))
    assert "setup_comands" in as_ray_reads(spoiled).stderr


def test_the_cluster_file_runs_commands_that_there_are() -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    commands = [one for name, part in cluster.items() if name.endswith("_commands") for one in part]
    for command in commands:
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert set(re.findall(r"STOCKADE_\w+", command)) <= VARIABLES
    called = [words for command in commands for words in stockade_commands(command)]
    assert [words[0] for words in called] == ["serve", "node"]
    for words in called:
        check_command(words)


def test_the_cluster_file_keeps_secrets_out_of_the_copied_checkout() -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    ours = {source for source in cluster["file_mounts"].values() if source != "."}
    assert ours == {"./site"}
    assert "/site" in cluster["rsync_exclude"]
    assert "site/" in (ROOT / ".gitignore").read_text().splitlines()


# --- systemd -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit whose command is one that exists here."""
    text = request.param.read_text().replace(
        "/usr/local/lib/stockade/bin/stockade", shutil.which("true") or "/bin/true"
    )
    path = tmp_path / request.param.name
    path.write_text(text)
    return path


def systemd_analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def test_systemd_accepts_the_unit(unit: Path) -> None:
    verdict = systemd_analyze("verify", "--man=no", str(unit))
    about_ours = [line for line in verdict.stderr.splitlines() if unit.name in line]
    assert (verdict.returncode, about_ours) == (0, [])


def test_systemd_finds_the_unit_well_enclosed(unit: Path) -> None:
    verdict = systemd_analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(unit))
    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_unit_runs_a_command_that_there_is(path: Path) -> None:
    text = path.read_text()
    (words,) = [
        words for line in text.splitlines() if line.startswith("ExecStart=") for words in stockade_commands(line)
    ]
    check_command(words)
    assert set(re.findall(r"STOCKADE_[A-Z_]+", text)) <= VARIABLES
    stop_s = int(re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[0])
    assert stop_s * 1000 > Settings.model_validate({}).drain_ms_max * 2


# --- the image ---------------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Containerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", CONTAINERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def copied() -> list[str]:
    """What of the checkout the image gets."""
    found = [rest.split() for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    return [source for words in found for source in words[:-1]]


def is_let_in(path: str) -> bool:
    """Whether the ignore file beside the Containerfile leaves a path in the build's context."""
    let_in = False
    for line in (CONTAINERFILE.parent / "Containerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
            let_in = line.startswith("!")
    return let_in


def test_the_image_copies_what_there_is() -> None:
    assert [path for path in copied() if not (ROOT / path).exists()] == []
    assert [path for path in copied() if not is_let_in(path)] == []
    assert not is_let_in("tests") and not is_let_in("stockade.toml") and not is_let_in(".git")


def test_the_image_runs_as_nobody_special_and_says_how_it_is() -> None:
    by_name = dict(instructions())
    assert by_name["USER"] == "10001:10001"
    assert by_name["STOPSIGNAL"] == "SIGTERM"
    (entry,), command = json.loads(by_name["ENTRYPOINT"]), json.loads(by_name["CMD"])
    assert entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    check_command(command)
    probe = json.loads(by_name["HEALTHCHECK"].partition("CMD ")[2])
    settings = Settings.model_validate({})
    assert f"http://127.0.0.1:{settings.http_port}/livez" in probe[-1]
    compile(probe[-1], "probe", "exec")
    ports = {settings.grpc_port, settings.http_port, settings.cluster.directory_port}
    assert set(map(int, by_name["EXPOSE"].split())) == ports
    assert set(re.findall(r"STOCKADE_\w+", by_name["ENV"])) <= VARIABLES


def test_the_image_installs_nothing_without_a_hash_and_names_no_index() -> None:
    text = CONTAINERFILE.read_text()
    installs = [
        call for name, rest in instructions() if name == "RUN" for call in rest.split("&&") if "pip install" in call
    ]
    assert len(installs) == 3
    assert [call for call in installs if "--require-hashes" not in call and "--no-deps --no-index" not in call] == []
    assert re.findall(r"https?://(?!127\.0\.0\.1)|index-url|[\w-]+\.(?:io|com|org)/", text) == []


def test_the_image_has_everything_that_serving_needs() -> None:
    """Whatever the server's distributions need, and what that needs, is pinned for the image; and nothing of the tests."""
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "deploy" / "constraints.txt").read_text(), re.MULTILINE))
    needed, waiting = set(), [Requirement("stockade-server"), Requirement("stockade")]
    while waiting:
        one = waiting.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            wanted = [
                requirement.marker is None or requirement.marker.evaluate({"extra": extra})
                for extra in (one.extras or {""})
            ]
            canonical = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if any(wanted) and canonical not in needed:
                needed.add(canonical)
                waiting.append(requirement)
    assert needed - {"stockade", "stockade-server"} - pinned == set()
    assert pinned & {"pytest", "mypy", "ruff", "hypothesis"} == set()


def test_the_image_can_be_built_from_what_it_copies(tmp_path: Path) -> None:
    """Its own command makes both wheels from nothing but the files that the image gets."""
    for source in copied():
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    (built,) = re.findall(r"/build/tools/bin/(pip wheel .*?) &&", dict(instructions_by_text())["pip wheel"])
    subprocess.run(
        [sys.executable, "-m", *shlex.split(built), "--quiet"], cwd=tmp_path, check=True, capture_output=True
    )
    names = {
        name.partition("/")[0]
        for wheel in (tmp_path / "wheels").glob("*.whl")
        for name in zipfile.ZipFile(wheel).namelist()
    }
    assert {"actors", "gateway", "stockade"} <= names


def instructions_by_text() -> Iterator[tuple[str, str]]:
    for name, rest in instructions():
        if name == "RUN" and "pip wheel" in rest:
            yield "pip wheel", rest


# --- Kubernetes --------------------------------------------------------------------------------------------------------------

# What KubeRay's RayCluster (ray.io/v1) knows, as far as it is not a pod's.
CLUSTER_FIELDS = {
    "headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions",
    "headServiceAnnotations", "suspend", "gcsFaultToleranceOptions", "managedBy", "upgradeStrategy", "authOptions",
}  # fmt: skip
HEAD_FIELDS = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKER_FIELDS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template", "scaleStrategy",
    "suspend", "idleTimeoutSeconds",
}  # fmt: skip


def manifests() -> dict[str, Any]:
    """Every object of the manifest, by kind and name."""
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(MANIFEST.read_text())}


def pods() -> dict[str, Any]:
    """The pods' templates: of the head and of a node."""
    spec = manifests()["RayCluster/stockade"]["spec"]
    (workers,) = spec["workerGroupSpecs"]
    return {"head": spec["headGroupSpec"]["template"], "node": workers["template"]}


@pytest.fixture(params=["head", "node"])
def pod(request: pytest.FixtureRequest) -> Any:
    return pods()[request.param]


def test_kuberay_knows_every_field_of_the_cluster() -> None:
    cluster = manifests()["RayCluster/stockade"]
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    assert set(spec) <= CLUSTER_FIELDS
    assert set(spec["headGroupSpec"]) <= HEAD_FIELDS
    for group in spec["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", group["groupName"])
    assert spec["rayVersion"] == importlib.metadata.version("ray")
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(type(value) is str for value in group["rayStartParams"].values()), "KubeRay takes texts only"
        least = Settings.model_validate({}).ray_object_store_bytes
        assert int(group["rayStartParams"]["object-store-memory"]) == least


def test_kubernetes_own_schema_accepts_everything_else() -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="Kubernetes' schemas come with it; asked where installed"
    )
    for one in manifests().values():
        if one["kind"] != "RayCluster":
            validator.validate(one, "1.30", strict=True)
    for template in pods().values():
        told = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", **template["metadata"]},
            "spec": template["spec"],
        }
        validator.validate(told, "1.30", strict=True)


def test_what_selects_pods_finds_them() -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods().items()}
    found = manifests()
    selectors = {
        "Service/stockade": (found["Service/stockade"]["spec"]["selector"], {"head", "node"}),
        "Service/stockade-head": (found["Service/stockade-head"]["spec"]["selector"], {"head"}),
        "PodDisruptionBudget/stockade": (
            found["PodDisruptionBudget/stockade"]["spec"]["selector"]["matchLabels"],
            {"head", "node"},
        ),
    }
    for what, (selector, expected) in selectors.items():
        assert {name for name, has in labels.items() if selector.items() <= has.items()} == expected, what
    (container,) = pods()["head"]["spec"]["containers"]
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    for service in ("Service/stockade", "Service/stockade-head"):
        for port in found[service]["spec"]["ports"]:
            assert named[port["targetPort"]] == port["port"]


def test_a_pods_parts_fit_each_other(pod: Any) -> None:
    spec = pod["spec"]
    (container,) = spec["containers"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = Settings.model_validate({})
    assert (ports["grpc"], ports["http"]) == (settings.grpc_port, settings.http_port)
    assert ports["directory"] == settings.cluster.directory_port
    for probe, page in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": page, "port": "http"}
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_a_pod_may_do_little_and_has_time_to_drain(pod: Any) -> None:
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["enableServiceLinks"], "or Kubernetes makes STOCKADE_… variables that are no settings"
    assert not spec["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["terminationGracePeriodSeconds"] * 1000 > settings_of(pod).drain_ms_max * 2


def test_a_pods_secrets_are_named_and_never_written(pod: Any) -> None:
    (container,) = pod["spec"]["containers"]
    secret = {"STOCKADE_JOURNAL_URL", "STOCKADE_CLUSTER_TOKEN", "RAY_AUTH_TOKEN"}
    by_name = {variable["name"]: variable for variable in container["env"]}
    assert secret <= set(by_name)
    assert [name for name in secret if "secretKeyRef" not in by_name[name].get("valueFrom", {})] == []
    assert "Secret" not in {one["kind"] for one in manifests().values()}
    assert "token =" not in manifests()["ConfigMap/stockade-settings"]["data"]["stockade.toml"]


def test_a_pod_runs_a_command_that_there_is_with_settings_that_are_right(pod: Any) -> None:
    (container,) = pod["spec"]["containers"]
    (script,) = container["args"]
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    assert script.startswith("ulimit -n 65536; $KUBERAY_GEN_RAY_START_CMD &\n")
    (words,) = stockade_commands(script)
    check_command(words)
    settings = settings_of(pod)
    assert settings.journal.is_shared
    assert settings.cluster.ray_address == "head:6379"
    assert (settings.grpc_host, settings.http_host) == ("0.0.0.0", "0.0.0.0")
    assert settings.credentials and settings.tls


def settings_of(pod: Any) -> Settings:
    """What the pod's settings file and variables make, with secrets and addresses made up."""
    (container,) = pod["spec"]["containers"]
    made_up = {"STOCKADE_JOURNAL_URL": "postgresql://u:p@db/stock", "STOCKADE_CLUSTER_TOKEN": "t"}
    environment = {
        one["name"]: one.get("value") or made_up.get(one["name"], "10.0.0.7")
        for one in container["env"]
        if one["name"].startswith("STOCKADE_")
    }
    environment["STOCKADE_CLUSTER_RAY_ADDRESS"] = "head:6379"
    text = manifests()["ConfigMap/stockade-settings"]["data"][Path(environment.pop("STOCKADE_CONFIG")).name]
    folder = Path(__file__).parent
    return load_text(text, environment, folder)


def load_text(text: str, environment: dict[str, str], folder: Path) -> Settings:
    values = tomllib.loads(text)
    return load_settings(overrides=values, environment=environment, working_dir=folder).settings


# --- what is written about it ------------------------------------------------------------------------------------------------

PAGES = ["docs/deploying.md", "docs/operations.md"]


def blocks(page: str, language: str) -> list[str]:
    """The examples of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_settings_is_right(page: str, tmp_path: Path) -> None:

    for number, text in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        load_settings(file, environment={})


@pytest.mark.parametrize("page", PAGES)
def test_every_example_runs_commands_and_names_files_that_there_are(page: str) -> None:
    for text in blocks(page, "sh"):
        assert subprocess.run(["bash", "-n", "-c", text], check=False).returncode == 0, text
        for words in re.findall(r"^stockade ([^#|\n]*)", text, re.MULTILINE):
            check_command(shlex.split(words))
        assert [path for path in re.findall(r"\bdeploy/[\w./-]+", text) if not (ROOT / path).exists()] == []
        assert set(re.findall(r"STOCKADE_[A-Z_]+", text)) <= VARIABLES
