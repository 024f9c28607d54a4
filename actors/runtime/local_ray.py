"""A Ray of our own on this machine: its environment, its arguments, its files, its processes.

Owns how Ray is started for one node: with token authentication, nothing sent anywhere, a small object store (the service
puts nothing there), no prestarted workers (``num_cpus=0``), all files under the data directory. A node of its own has it on
loopback only; the head of a cluster at the node's address; any other node joins the head's with a raylet of its own; and
where somebody else runs Ray already (``cluster.ray_address``), it is used as it is. Starts no actor.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from actors.runtime.cluster_place import ray_token
from actors.runtime.plan import NodePlan
from actors.runtime.processes import MARK_VARIABLE, ProcessId

__all__ = ["NAMESPACE", "RayProcesses", "is_one_of_ours", "node_environment", "short_path_to", "start_ray"]

NAMESPACE = "stockade"
SOCKET_PATH_BYTES_MAX = 107  # sun_path of AF_UNIX, without its closing zero
SOCKET_PATH_TAIL_BYTES = 80  # "/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.sock…" and some room
SESSIONS_KEPT = 2  # of Ray's log directories: this one and the one before, for whoever looks for a cause
TOKEN_BYTES = 32
RAY_LOG_BYTES_MAX = 8 * 1024 * 1024  # a file, of about twenty; Ray's own default is 512 MB
ACTOR_TITLES = (b"ray::ShardHostActor", b"ray::GatewayActor", b"ray::DirectoryActor")

RayProcesses = dict[str, int]


def node_environment(plan: NodePlan, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a node's processes: the caller's, with everything about Ray said explicitly. Of a Ray that is
    somebody else's, what the caller says of it stays."""
    ours = {
        MARK_VARIABLE: str(plan.data_dir),
        "SPT_NOENV": "1",  # setproctitle would overwrite the environment block, and the mark with it
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    if plan.settings.cluster.ray_address:
        return {**environment, **ours}
    kept = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
    return {
        **kept,
        **ours,
        "RAY_AUTH_MODE": "token",  # any user of this machine could run code through an open GCS port
        "RAY_AUTH_TOKEN_PATH": str(plan.data_dir / "ray" / "token"),
        "RAY_worker_niceness": "0",
        # "no cluster beyond this machine": every port on 127.0.0.1
        **({} if plan.cluster else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}),
        "RAY_memory_monitor_refresh_ms": "0",  # it would kill our actors for the memory of others
        "RAY_ROTATION_MAX_BYTES": str(RAY_LOG_BYTES_MAX),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "AUTOSCALER_METRIC_PORT": "0",  # fixed ports by default: two nodes on a machine would quarrel over them
        "DASHBOARD_METRIC_PORT": "0",
    }


def start_ray(plan: NodePlan, head_ray: str = "") -> RayProcesses:
    """Start Ray in this process and connect to it; the pids of "gcs" and "raylet", as far as they are ours. Takes 3–4 s on
    an idle machine. ``head_ray``: "host:port" of the head's Ray, for a node that joins it.
    """
    import ray

    if plan.settings.cluster.ray_address:
        ray.init(address=plan.settings.cluster.ray_address, namespace=NAMESPACE, log_to_driver=False)
        return {}
    let_the_agent_choose_its_port()
    temp_dir = prepare_files(plan)
    return join_ray(plan, head_ray, temp_dir) if head_ray else start_own_ray(plan, temp_dir)


def start_own_ray(plan: NodePlan, temp_dir: Path) -> RayProcesses:
    """A Ray of this node alone, or the head that others join."""
    import ray
    from ray._private import worker as ray_worker

    ray.init(
        address="local",
        num_cpus=0,
        object_store_memory=plan.settings.ray_object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=True,
        logging_level=logging.ERROR,
        namespace=NAMESPACE,
        _temp_dir=str(temp_dir),
        _node_ip_address=plan.cluster.address if plan.cluster else "127.0.0.1",
    )
    node: Any = ray_worker._global_node
    processes = node.all_processes
    return {name: processes[key][0].process.pid for name, key in (("gcs", "gcs_server"), ("raylet", "raylet"))}


def join_ray(plan: NodePlan, head_ray: str, temp_dir: Path) -> RayProcesses:
    """A raylet of this node in the head's Ray; also several on one machine, each at an address of its own."""
    import ray
    from ray._private import node as ray_node
    from ray._private import parameter

    assert plan.cluster is not None
    parameters = parameter.RayParams(
        gcs_address=head_ray,
        num_cpus=0,
        object_store_memory=plan.settings.ray_object_store_bytes,
        node_ip_address=plan.cluster.address,
        temp_dir=str(temp_dir),
        resources={},
    )
    node: Any = ray_node.Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=False)
    ray.init(
        address=head_ray,
        log_to_driver=False,
        configure_logging=True,
        logging_level=logging.ERROR,
        namespace=NAMESPACE,
        _temp_dir=str(temp_dir),
        _node_ip_address=plan.cluster.address,
    )
    return {"raylet": node.all_processes["raylet"][0].process.pid}


def let_the_agent_choose_its_port() -> None:
    """Ray's agent wants port 52365 of everybody; beside another Ray it tries in vain for 4 s. No public option."""
    from ray._private import parameter

    class AnyAgentPort(parameter.RayParams):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"dashboard_agent_listen_port": 0, **options})

    parameter.RayParams = AnyAgentPort  # type: ignore[misc]


def prepare_files(plan: NodePlan) -> Path:
    """Ray's directory inside ours, and its token; where it shall put its files."""
    ray_dir = plan.data_dir / "ray"
    ray_dir.mkdir(mode=0o700, exist_ok=True)
    write_token(ray_dir / "token", ray_token(plan.cluster_token) if plan.cluster else "")
    temp_dir = ray_dir / "run"  # Ray opens its directory to everybody: it gets one inside ours
    temp_dir.mkdir(exist_ok=True)
    remove_old_sessions(temp_dir)
    return short_path_to(temp_dir)


def is_one_of_ours(process: ProcessId) -> bool:
    """Whether it runs an actor of ours. Ray's own processes hold nothing, and some outlive their raylet by seconds."""
    try:
        title = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return title.startswith(ACTOR_TITLES)


def write_token(path: Path, shared: str) -> None:
    """The token of a cluster's Ray, ``shared`` by its nodes; "": one made once for this data directory. Readable by its
    owner only."""
    if shared:
        path.unlink(missing_ok=True)
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(shared or secrets.token_hex(TOKEN_BYTES))


def remove_old_sessions(temp_dir: Path) -> None:
    sessions = sorted(path for path in temp_dir.glob("session_2*") if path.is_dir())
    for session in sessions[: -SESSIONS_KEPT + 1]:
        shutil.rmtree(session, ignore_errors=True)


def short_path_to(directory: Path) -> Path:
    """``directory`` itself, or a symbolic link to it that is short enough for Ray's sockets.

    Unix sockets take paths of up to 107 bytes and Ray adds about 70 to what it is given. The link lies in a directory
    of this user only, named by a digest of the target, so the same data directory always gets the same link.
    """
    if len(os.fsencode(directory)) + SOCKET_PATH_TAIL_BYTES <= SOCKET_PATH_BYTES_MAX:
        return directory
    links = Path(tempfile.gettempdir()) / f"stockade-{os.getuid()}"
    if len(os.fsencode(links)) + SOCKET_PATH_TAIL_BYTES + 10 > SOCKET_PATH_BYTES_MAX:
        links = Path("/tmp") / f"stockade-{os.getuid()}"  # TMPDIR itself is too long
    links.mkdir(mode=0o700, exist_ok=True)
    if links.lstat().st_uid != os.getuid() or links.is_symlink():
        raise PermissionError(f"{links} belongs to somebody else; remove it, or set TMPDIR to a directory of your own")
    link = links / hashlib.blake2b(os.fsencode(directory), digest_size=4).hexdigest()
    if not link.is_symlink() or link.readlink() != directory:
        link.unlink(missing_ok=True)
        link.symlink_to(directory)
    return link
