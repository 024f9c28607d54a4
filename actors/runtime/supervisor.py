"""The supervisor behind ``stockade serve``: keeps one node serving, mends what dies, stops it cleanly. No Ray in here.

Owns the order of things at start and stop, the watching (links, pidfds, silence) and the time limits. What to do next is
``mending``'s decision; what a process does is its own. It never touches stock, journal or requests, so its own death costs
no more than a restart: every process of the node ends as soon as its link does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import secrets
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.runtime.announcements import Announcer
from actors.runtime.local_ray import GENERATION_VARIABLE, node_environment
from actors.runtime.mending import Activate, EndGeneration, Stop, is_complete, next_actions
from actors.runtime.operations import METRICS_CONTENT_TYPE, Answer, OperationsServer, merge_metrics, scrape, text_answer
from actors.runtime.plan import GATEWAY, HOST, NODE, EntryPoints, NodePlan
from actors.runtime.ports import PortInUse, ReservedPort, bind_problem
from actors.runtime.processes import (
    ProcessId,
    become_subreaper,
    die_with_parent,
    end_processes,
    find_marked,
    is_running,
    process_id,
    reap_orphans,
    wait_for_exit,
)
from actors.runtime.run_directory import (
    DataDirectoryUnusable,
    ServeLock,
    prepare_data_dir,
    read_cluster_token,
    remove_ready,
    write_ready,
)
from actors.runtime.settings import Settings
from actors.runtime.supervision_link import LinkServer, MemberLink, MemberState

__all__ = ["EXIT_CLEAN", "EXIT_UNAVAILABLE", "Supervisor"]

EXIT_CLEAN = 0
EXIT_UNAVAILABLE = 5

TICK_S = 0.25  # time limits are looked at this often; everything else is told at once
COMPLETE_WITHIN_S = 90.0  # a generation, from its start; a long replay does not count (see ``is_late``)
MEMBER_BACK_WITHIN_S = 20.0  # Ray restarts a dead actor in 0.6 s on an idle machine; later its generation counts as lost
SILENCE_S_MAX = 20.0  # of a process that beats every second: stopped or hung, ended so that Ray restarts it
STOP_GRACE_S = 5.0  # beyond the drain a process was given
GENERATIONS_TRIED_MAX = 5  # in a row without one that became complete
FAILURES_IN_A_ROW_MAX = 20  # of one role's service, with growing pauses: about a minute
FAILURES_AT_START_MAX = 3  # before it ever served: tell the person instead of trying on
FAILURE_PAUSE_S_MIN = 0.1
FAILURE_PAUSE_S_MAX = 5.0
LEFTOVERS_GONE_WITHIN_S = 10.0  # after SIGKILL


@dataclass(slots=True)
class Generation:
    """One node process with its Ray. ``ray``: pids of gcs and raylet, once known. ``lost``: its Ray can restart nothing."""

    number: int
    process: asyncio.subprocess.Process
    started_at: float
    ray: dict[str, int] = field(default_factory=dict)
    lost: bool = False
    complete: bool = False
    watchers: list[asyncio.Task[None]] = field(default_factory=list)


class CannotServe(Exception):
    """Why ``serve`` gives up; for the person who started it."""


class Supervisor:
    """One ``stockade serve``. ``run`` returns its exit code."""

    def __init__(self, settings: Settings, announcer: Announcer, entry_points: EntryPoints) -> None:
        self._settings = settings
        self._announcer = announcer
        self._entry_points = entry_points
        self._members: list[MemberLink] = []
        self._generations: dict[int, Generation] = {}
        self._newest = 0
        self._generations_failed = 0
        self._failures: dict[str, int] = {}
        self._activate_not_before: dict[str, float] = {}
        self._missing_since: dict[str, float] = {}
        self._stop_deadlines: dict[int, float] = {}
        self._give_up: asyncio.Future[str]
        self._stop_asked: asyncio.Event
        self._phase = "starting"
        self._ready_at: float | None = None
        self._started_at = time.monotonic()
        self._trouble_since: float | None = None
        self._restarts: dict[str, int] = {}
        self._frame_port = 0
        self._ready_written: dict[str, Any] = {}
        self._background: set[asyncio.Task[None]] = set()

    # --- the life of serve ------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Start, serve until asked to stop, stop. 0 after a clean stop, 5 when it cannot serve (and it has said why)."""
        loop = asyncio.get_running_loop()
        self._give_up, self._stop_asked = loop.create_future(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_asked.set)
        try:
            async with contextlib.AsyncExitStack() as held:
                self._prepare(held)
                await self._clear_leftovers()
                await self._open_ports(held)
                held.push_async_callback(self._end_everything)
                await self._start_generation()
                await self._serve()
                return await self._stop()
        except (CannotServe, DataDirectoryUnusable, PortInUse) as error:
            self._announcer.say("failed", f"cannot serve: {error}")
            return EXIT_UNAVAILABLE

    def _prepare(self, held: contextlib.AsyncExitStack) -> None:
        self._data_dir = prepare_data_dir(self._settings.data_dir)
        lock = ServeLock(self._data_dir)
        lock.acquire()
        held.callback(lock.release)
        held.callback(remove_ready, self._data_dir)
        become_subreaper()
        self._announcer.log_to(self._data_dir / "logs" / "serve.log")
        self._announcer.say("starting", f"Stockade starts on {self._data_dir} (pid {os.getpid()})", pid=os.getpid())

    async def _clear_leftovers(self) -> None:
        """Processes of a dead ``serve`` end by themselves within moments; wait, then end them."""
        leftovers = find_marked(str(self._data_dir))
        if not leftovers:
            return
        patience_s = self._settings.leftover_patience_ms / 1000
        pids = ", ".join(str(process.pid) for process in leftovers)
        self._announcer.say("waiting", f"waiting up to {patience_s:g} s for what a former serve left behind (pids {pids})")
        deadline = time.monotonic() + patience_s
        while (leftovers := find_marked(str(self._data_dir))) and time.monotonic() < deadline:
            await asyncio.sleep(TICK_S)
        if leftovers:
            pids = ", ".join(str(process.pid) for process in leftovers)
            self._announcer.say("killing", f"ending leftovers of a former serve on this data directory (pids {pids})")
            await asyncio.to_thread(end_processes, leftovers, within_s=LEFTOVERS_GONE_WITHIN_S)
            if alive := [process.pid for process in leftovers if is_running(process)]:
                raise CannotServe(f"processes of a former serve do not end: {alive}")

    async def _open_ports(self, held: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        try:
            self._grpc_port = ReservedPort(settings.grpc_host, settings.grpc_port)
        except OSError as error:
            raise bind_problem(error, settings.grpc_host, settings.grpc_port, "grpc") from error
        held.callback(self._grpc_port.close)
        operations = OperationsServer({"/metrics": self._metrics, "/livez": self._livez, "/readyz": self._readyz})
        try:
            self._http_port = await operations.start(settings.http_host, settings.http_port)
        except OSError as error:
            raise bind_problem(error, settings.http_host, settings.http_port, "http") from error
        held.callback(operations.close)
        self._link_token = secrets.token_urlsafe(32)
        link = LinkServer(self._link_token, self._member_joined, self._member_changed, self._member_left)
        self._link_port = await link.start()
        held.callback(link.close)

    async def _serve(self) -> None:
        """Until somebody asks to stop, or CannotServe."""
        stop = asyncio.create_task(self._stop_asked.wait())
        try:
            while not stop.done():
                await asyncio.wait({stop, self._give_up}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
                if self._give_up.done():
                    raise CannotServe(self._give_up.result())
                self._look_at_the_clock()
        finally:
            stop.cancel()

    async def _stop(self) -> int:
        """Gateways first (they tell their callers), then the host (it makes everything durable), then Ray."""
        self._phase = "stopping"
        self._announcer.say("stopping", "stopping: no new calls, finishing those under way")
        self._write_ready()
        for prefix in (GATEWAY, HOST):
            await self._stop_members([member for member in self._members if member.role.startswith(prefix)])
        unclean = [member.role for member in self._members if member.role == HOST and member.state is not MemberState.STOPPED]
        await self._end_everything()
        if unclean:
            self._announcer.say("stopped", "stopped, but the host did not close in time; the next start will replay its tail")
            return EXIT_UNAVAILABLE
        self._announcer.say("stopped", "stopped cleanly")
        return EXIT_CLEAN

    async def _stop_members(self, members: list[MemberLink]) -> None:
        for member in members:
            member.stop(self._settings.drain_ms_max)
        deadline = time.monotonic() + self._settings.drain_ms_max / 1000 + STOP_GRACE_S
        while time.monotonic() < deadline:
            if all(member.state is MemberState.STOPPED or member not in self._members for member in members):
                return
            await asyncio.sleep(0.02)

    async def _end_everything(self) -> None:
        self._phase = "stopping"
        for number in list(self._generations):
            await self._end_generation(number)
        await asyncio.to_thread(end_processes, find_marked(str(self._data_dir)), within_s=LEFTOVERS_GONE_WITHIN_S)
        reap_orphans(())

    # --- generations ------------------------------------------------------------------------------------------------------

    async def _start_generation(self) -> None:
        self._newest += 1
        plan = NodePlan(
            settings=self._settings,
            data_dir=self._data_dir,
            generation=self._newest,
            serve_pid=os.getpid(),
            link_port=self._link_port,
            link_token=self._link_token,
            cluster_token=self._cluster_token(),
            grpc_port=self._grpc_port.port,
            entry_points=self._entry_points,
        )
        with open(self._data_dir / "logs" / "node.log", "ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "actors.runtime.node",
                stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
                env={**node_environment(self._data_dir, dict(os.environ)), GENERATION_VARIABLE: str(self._newest)},
                start_new_session=True,  # Ctrl-C is for serve alone
                preexec_fn=die_with_parent,
            )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(plan))
        process.stdin.close()
        generation = Generation(self._newest, process, time.monotonic())
        self._generations[self._newest] = generation
        generation.watchers.append(self._in_background(self._watch_node(generation)))

    def _cluster_token(self) -> str:
        secret = self._settings.cluster_token
        return secret.get_secret_value() if secret else read_cluster_token(self._data_dir)

    async def _watch_node(self, generation: Generation) -> None:
        await generation.process.wait()
        self._lose(generation, "the node's Ray driver ended")

    async def _watch_ray(self, generation: Generation, name: str, pid: int) -> None:
        await wait_for_exit(pid)
        self._lose(generation, f"Ray's {name} (pid {pid}) died")

    def _lose(self, generation: Generation, why: str) -> None:
        """Its actors may still serve, but nothing restarts them: the next generation is started beside it."""
        if generation.lost or self._phase == "stopping" or generation.number not in self._generations:
            return
        generation.lost = True
        self._note_trouble(why, "its actors serve on while another Ray is started beside it")
        if generation.number == self._newest:
            self._generations_failed = 0 if generation.complete else self._generations_failed + 1
            if self._generations_failed >= GENERATIONS_TRIED_MAX:
                self._fail(f"{why}; {self._generations_failed} starts in a row failed, see {self._data_dir}/logs/node.log")
            else:
                self._in_background(self._start_generation())

    async def _end_generation(self, number: int) -> None:
        generation = self._generations.pop(number, None)
        if generation is None:
            return
        with contextlib.suppress(ProcessLookupError):
            generation.process.kill()  # Ray's processes go with it
        await generation.process.wait()
        marked = [process for process in find_marked(str(self._data_dir)) if is_of_generation(process, number)]
        await asyncio.to_thread(end_processes, marked, within_s=LEFTOVERS_GONE_WITHIN_S)
        for watcher in generation.watchers:
            watcher.cancel()
        reap_orphans(other.process.pid for other in self._generations.values())

    # --- members ----------------------------------------------------------------------------------------------------------

    def _member_joined(self, member: MemberLink) -> None:
        self._members.append(member)
        self._missing_since.pop(member.role, None)
        self._mend()

    def _member_changed(self, member: MemberLink) -> None:
        if member.role == NODE:
            self._node_changed(member)
        elif member.state is MemberState.FAILED:
            self._service_failed(member)
        elif member.state is MemberState.SERVING:
            self._failures.pop(member.role, None)
            if member.role == HOST:
                self._frame_port = int(str(member.facts.get("endpoint", ":0")).rpartition(":")[2])
        self._mend()

    def _member_left(self, member: MemberLink) -> None:
        self._members.remove(member)
        if self._phase == "stopping":
            return
        generation = self._generations.get(member.generation)
        if generation is not None and not generation.lost and member.role != NODE:
            self._restarts[member.role] = self._restarts.get(member.role, 0) + 1
            self._missing_since[member.role] = time.monotonic()
            self._note_trouble(f"{member.role} (pid {member.pid}) ended", "Ray restarts it")
        self._mend()

    def _node_changed(self, member: MemberLink) -> None:
        generation = self._generations.get(member.generation)
        if generation is None:
            return
        if member.state is MemberState.FAILED:
            self._announcer.say("ray_failed", str(member.facts.get("error")))
        elif not generation.ray:
            generation.ray = {str(name): int(pid) for name, pid in member.facts["ray"].items()}
            for name, pid in generation.ray.items():
                generation.watchers.append(self._in_background(self._watch_ray(generation, name, pid)))

    def _service_failed(self, member: MemberLink) -> None:
        error = str(member.facts.get("error"))
        count = self._failures[member.role] = self._failures.get(member.role, 0) + 1
        pause = min(FAILURE_PAUSE_S_MAX, FAILURE_PAUSE_S_MIN * 2**count)
        self._activate_not_before[member.role] = time.monotonic() + pause
        self._announcer.say("service_failed", f"{member.role}: {error}", role=member.role, kind=member.facts.get("kind"))
        allowed = FAILURES_AT_START_MAX if self._ready_at is None else FAILURES_IN_A_ROW_MAX
        if member.facts.get("fatal") or count >= allowed:
            self._fail(f"{member.role}: {error}")

    def _mend(self) -> None:
        """Do what ``mending`` says, then tell the world how things are."""
        if self._phase == "stopping":
            return
        for action in next_actions(self._members, self._newest, self._settings.gateways):
            if isinstance(action, EndGeneration):
                self._in_background(self._end_generation(action.number))
                continue
            member = action.member
            assert isinstance(member, MemberLink)
            if isinstance(action, Stop):
                member.stop(self._settings.drain_ms_max)
                self._stop_deadlines[member.pid] = time.monotonic() + self._settings.drain_ms_max / 1000 + STOP_GRACE_S
            elif isinstance(action, Activate) and time.monotonic() >= self._activate_not_before.get(member.role, 0.0):
                member.activate(frame_port=self._frame_port)
        self._note_progress()

    def _note_progress(self) -> None:
        if is_complete(self._members, self._newest, self._settings.gateways):
            generation = self._generations[self._newest]
            generation.complete, self._generations_failed = True, 0
            if self._ready_at is None:
                self._say_ready()
            elif self._trouble_since is not None:
                seconds = time.monotonic() - self._trouble_since
                self._announcer.say("mended", f"mended: everything serves again after {seconds:.1f} s", seconds=round(seconds, 3))
            self._trouble_since = None
            self._phase = "serving"
        elif self._ready_at is not None:
            self._phase = "mending"
        self._write_ready()

    def _say_ready(self) -> None:
        self._ready_at = time.monotonic()
        seconds = self._ready_at - self._started_at
        grpc = f"{self._settings.grpc_host}:{self._grpc_port.port}"
        http = f"http://{self._settings.http_host}:{self._http_port}"
        self._announcer.say("ready", f"READY grpc={grpc} http={http} ({seconds:.1f} s)", grpc=grpc, http=http, pid=os.getpid())

    def _note_trouble(self, what: str, consequence: str) -> None:
        if self._trouble_since is None:
            self._trouble_since = time.monotonic()
        self._announcer.say("trouble", f"{what}; {consequence}")

    # --- the clock --------------------------------------------------------------------------------------------------------

    def _look_at_the_clock(self) -> None:
        """Whoever is too late, too silent or too slow to stop is ended; Ray or the next generation replaces it."""
        now, loop_now = time.monotonic(), asyncio.get_running_loop().time()
        for member in list(self._members):
            silent = member.state is not MemberState.STARTING and loop_now - member.heard_at > SILENCE_S_MAX
            overdue = member.told_to_stop and member.state is not MemberState.STOPPED and now > self._stop_deadlines.get(member.pid, now)
            if silent or overdue:
                self._note_trouble(f"{member.role} (pid {member.pid}) does not answer", "it is ended")
                kill_quietly(member.pid)
        generation = self._generations.get(self._newest)
        if generation is not None and not generation.lost:
            missing = [role for role, since in self._missing_since.items() if now - since > MEMBER_BACK_WITHIN_S]
            if missing:
                self._missing_since.clear()
                self._lose(generation, f"Ray did not restart {', '.join(missing)}")
            elif self._is_late(generation, now):
                self._lose(generation, f"the node did not come up within {COMPLETE_WITHIN_S:g} s")
        self._mend()

    def _is_late(self, generation: Generation, now: float) -> bool:
        """Whether it should be complete by now. A host that replays takes the time it takes."""
        starting = any(m.role == HOST and m.state is MemberState.STARTING for m in self._members)
        return not generation.complete and not starting and now - generation.started_at > COMPLETE_WITHIN_S

    def _fail(self, why: str) -> None:
        if not self._give_up.done():
            self._give_up.set_result(why)

    def _in_background(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)
        return task

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"a bug in the supervisor: {error!r}")

    # --- what others may know ---------------------------------------------------------------------------------------------

    def _write_ready(self) -> None:
        me = process_id(os.getpid())
        assert me is not None
        ray = self._generations[self._newest].ray if self._newest in self._generations else {}
        current = {m.role: m for m in sorted(self._members, key=lambda m: (m.activated, m.generation))}
        self._write_if_changed(
            {
                "state": self._phase,
                "serve_pid": me.pid,
                "serve_start_time": me.start_time,
                "generation": self._newest,
                "grpc": f"{self._settings.grpc_host}:{self._grpc_port.port}",
                "http": f"{self._settings.http_host}:{self._http_port}",
                "node_pid": current[NODE].pid if NODE in current else None,
                "gcs_pid": ray.get("gcs"),
                "raylet_pid": ray.get("raylet"),
                "directory_pid": current["directory"].pid if "directory" in current else None,
                "host_pid": current[HOST].pid if HOST in current else None,
                "gateway_pids": [current[role].pid for role in sorted(current) if role.startswith(GATEWAY)],
                "restarts": self._restarts,
                "processes": {
                    role: {"pid": m.pid, "state": m.state.value, "generation": m.generation, **m.facts} for role, m in current.items()
                },
            }
        )

    def _write_if_changed(self, state: dict[str, Any]) -> None:
        if state != self._ready_written:
            self._ready_written = state
            write_ready(self._data_dir, state)

    async def _livez(self) -> Answer:
        return text_answer(200, "alive\n")

    async def _readyz(self) -> Answer:
        serving = {m.role for m in self._members if m.state is MemberState.SERVING}
        lacking = [part for part in (HOST, GATEWAY) if not any(role.startswith(part) for role in serving)]
        if self._phase == "stopping" or lacking:
            return text_answer(503, f"{self._phase}: no {' and no '.join(lacking) or 'new calls'}\n")
        return text_answer(200, "ready\n")

    async def _metrics(self) -> Answer:
        endpoints = {m.role: str(m.facts["metrics"]) for m in self._members if m.state is MemberState.SERVING and "metrics" in m.facts}
        texts = dict(zip(endpoints, await asyncio.gather(*(scrape(endpoint) for endpoint in endpoints.values())), strict=True))
        return Answer(200, METRICS_CONTENT_TYPE, merge_metrics({"serve": self._own_metrics(), **texts}).encode())

    def _own_metrics(self) -> str:
        serving = int(self._phase == "serving")
        lines = [
            "# HELP stockade_node_serving Whether every process of the node serves",
            "# TYPE stockade_node_serving gauge",
            f"stockade_node_serving {serving}",
            "# HELP stockade_node_generation How many Rays this serve has started",
            "# TYPE stockade_node_generation counter",
            f"stockade_node_generation {self._newest}",
            "# HELP stockade_process_restarts_total Processes of the node that ended and were started again, by role",
            "# TYPE stockade_process_restarts_total counter",
            *(f'stockade_process_restarts_total{{role="{role}"}} {count}' for role, count in self._restarts.items()),
        ]
        return "\n".join(lines) + "\n"


def is_of_generation(process: ProcessId, number: int) -> bool:
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{GENERATION_VARIABLE}={number}".encode() in environment.split(b"\0")


def kill_quietly(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
