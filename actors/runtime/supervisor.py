"""The supervisor behind ``stockade serve``: keeps one node serving, mends what dies, stops it cleanly. No Ray in here.

Owns the order of things at start and stop, the watching (links, pidfds, silence) and the time limits. What to do next
is ``mending``'s decision; what a process does is its own. It never touches stock, journal or requests, so its own
death costs no more than a restart: every process of the node ends as soon as its link does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Coroutine
from typing import Any

from actors.runtime.announcements import Announcer
from actors.runtime.cluster_place import CannotJoin, ClusterPlace, join_cluster
from actors.runtime.disk_floor import DiskFloor
from actors.runtime.generations import Generation, end_generation, put_ray_to_rest, spawn_node
from actors.runtime.leftovers import LeftoversRemain, clear_leftovers
from actors.runtime.mending import Activate, EndGeneration, Stop, is_complete, next_actions
from actors.runtime.node_pages import NodeView, metrics_page, ready_page, ready_state
from actors.runtime.operations import Answer, OperationsServer, text_answer
from actors.runtime.plan import GATEWAY, HOST, NODE, WEBHOOKS, EntryPoints, NodePlan, is_host, shape_of
from actors.runtime.ports import PortInUse, ReservedPort, bind_problem
from actors.runtime.processes import (
    become_subreaper,
    end_processes,
    find_marked,
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
COMPLETE_WITHIN_S = 90.0  # a generation, from its start; a long replay does not count (see ``_is_late``)
MEMBER_BACK_WITHIN_S = (
    20.0  # Ray restarts a dead actor in 0.6 s on an idle machine; later its generation counts as lost
)
MOVE_AWAY_MS_MAX = 20_000  # for all shards of a host, before it stops; what is left is adopted from the journal
STOP_GRACE_S = 5.0  # beyond the drain a process was given
GENERATIONS_TRIED_MAX = 5  # in a row without one that became complete
FAILURES_IN_A_ROW_MAX = 20  # starts of one role's service, with growing pauses: about a minute and a half
FAILURES_AT_START_MAX = 3  # before it ever served: tell the person instead of trying on
FAILURE_PAUSE_S_MIN = 0.1
FAILURE_PAUSE_S_MAX = 5.0
ENDS_COUNTED_S = 60.0  # a role that ended more than a few times within this is started again with growing pauses
ENDS_AT_ONCE_MAX = 3
GONE_WITHIN_S = 10.0  # after SIGKILL


class CannotServe(Exception):
    """Why ``serve`` gives up; for the person who started it."""


class Supervisor:
    """One ``stockade serve``. ``run`` returns its exit code."""

    def __init__(self, settings: Settings, announcer: Announcer, entry_points: EntryPoints) -> None:
        me = process_id(os.getpid())
        assert me is not None
        self._settings = settings
        self._announcer = announcer
        self._entry_points = entry_points
        self._members: list[MemberLink] = []
        self._generations: dict[int, Generation] = {}
        self._newest = 0
        self._generations_failed = 0
        self._failures: dict[str, int] = {}  # of a role's service, in a row
        self._ends: dict[str, list[float]] = {}  # when a role's processes ended lately
        self._activate_not_before: dict[str, float] = {}
        self._missing_since: dict[str, float] = {}
        self._stop_deadlines: dict[int, float] = {}
        self._frame_ports: dict[str, int] = {}  # of hosts, kept over restarts: gateways find the next one at once
        self._shape = shape_of(settings)
        self._cluster: ClusterPlace | None = None
        self._started_at = time.monotonic()
        self._has_served = False
        self._trouble_since: float | None = None
        self._give_up_because = ""
        self._stop_asked = False
        self._attention = asyncio.Event()  # something happened that the main loop must look at now
        self._background: set[asyncio.Task[None]] = set()
        self._view = NodeView(me, members=self._members)
        self._ready_written: dict[str, Any] = {}

    # --- the life of serve ------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Start, serve until asked to stop, stop. 0 after a clean stop, 5 when it cannot serve and has said why."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop)
        try:
            async with contextlib.AsyncExitStack() as held:
                self._prepare(held)
                if self._shape.is_of_a_cluster:
                    self._cluster = join_cluster(self._settings, self._data_dir, self._cluster_token)
                    held.callback(self._cluster.close)
                await clear_leftovers(self._data_dir, self._settings.leftover_patience_ms, self._announcer)
                await self._open_ports(held)
                held.push_async_callback(self._end_everything)
                await self._start_generation()
                await self._serve()
                return await self._stop()
        except (CannotJoin, CannotServe, DataDirectoryUnusable, LeftoversRemain, PortInUse) as error:
            self._announcer.say("failed", f"cannot serve: {error}")
            return EXIT_UNAVAILABLE

    def _ask_to_stop(self) -> None:
        self._stop_asked = True
        self._attention.set()

    def _prepare(self, held: contextlib.AsyncExitStack) -> None:
        self._data_dir = prepare_data_dir(self._settings.data_dir)
        self._disk = DiskFloor(self._data_dir, self._settings.disk_floor_bytes)
        lock = ServeLock(self._data_dir)
        lock.acquire()
        held.callback(lock.release)
        held.callback(remove_ready, self._data_dir)
        become_subreaper()
        secret = self._settings.cluster_token
        self._cluster_token = secret.get_secret_value() if secret else read_cluster_token(self._data_dir)
        self._announcer.log_to(self._data_dir / "logs" / "serve.log")
        self._announcer.say("starting", f"Stockade starts on {self._data_dir} (pid {os.getpid()})", pid=os.getpid())

    async def _open_ports(self, held: contextlib.AsyncExitStack) -> None:
        settings, view = self._settings, self._view
        try:
            grpc_port = ReservedPort(settings.grpc_host, settings.grpc_port)
        except OSError as error:
            raise bind_problem(error, settings.grpc_host, settings.grpc_port, "grpc") from error
        held.callback(grpc_port.close)
        self._grpc_port = grpc_port.port
        operations = OperationsServer({"/metrics": self._metrics, "/livez": self._livez, "/readyz": self._readyz})
        try:
            http_port = await operations.start(settings.http_host, settings.http_port)
        except OSError as error:
            raise bind_problem(error, settings.http_host, settings.http_port, "http") from error
        held.callback(operations.close)
        view.grpc, view.http = f"{settings.grpc_host}:{self._grpc_port}", f"{settings.http_host}:{http_port}"
        self._link_token = secrets.token_urlsafe(32)
        link = LinkServer(self._link_token, self._member_joined, self._member_changed, self._member_left)
        self._link_port = await link.start()
        held.callback(link.close)

    async def _serve(self) -> None:
        """Until somebody asks to stop, or CannotServe."""
        while not self._stop_asked:
            if self._give_up_because:
                raise CannotServe(self._give_up_because)
            self._look_at_the_clock()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._attention.wait(), TICK_S)
            self._attention.clear()

    async def _stop(self) -> int:
        """Webhooks and gateways first (they tell their callers), then the host (it makes everything durable), then Ray.
        Hosts of a cluster first of all: they give their shards to others, and the gateways go on with those."""
        self._view.phase = "stopping"
        self._announcer.say("stopping", "stopping: no new calls, finishing those under way")
        self._tell_the_world()
        order = (WEBHOOKS, GATEWAY, HOST) if self._cluster is None else (HOST, WEBHOOKS, GATEWAY)
        for prefix in order:
            await self._stop_members([member for member in self._members if member.role.startswith(prefix)])
        hosts = [member for member in self._members if is_host(member.role) and member.activated]
        await self._end_everything()
        if any(host.state is not MemberState.STOPPED for host in hosts):
            self._announcer.say(
                "stopped", "stopped, but the host did not close in time; the next start replays its tail"
            )
            return EXIT_UNAVAILABLE
        self._announcer.say("stopped", "stopped cleanly")
        return EXIT_CLEAN

    async def _stop_members(self, members: list[MemberLink]) -> None:
        drain_ms_max = max((self._drain_ms_max(member) for member in members), default=0)
        for member in members:
            member.stop(drain_ms_max)
        deadline = time.monotonic() + drain_ms_max / 1000 + STOP_GRACE_S
        while time.monotonic() < deadline:
            if all(member.state is MemberState.STOPPED or member not in self._members for member in members):
                return
            await asyncio.sleep(0.02)

    def _drain_ms_max(self, member: MemberLink) -> int:
        moves_first = self._cluster is not None and is_host(member.role)
        return max(self._settings.drain_ms_max, MOVE_AWAY_MS_MAX if moves_first else 0)

    async def _end_everything(self) -> None:
        self._view.phase = "stopping"
        for number in list(self._generations):
            await self._end_generation(number)
        await asyncio.to_thread(end_processes, find_marked(str(self._data_dir)), within_s=GONE_WITHIN_S)
        reap_orphans(())

    # --- generations ------------------------------------------------------------------------------------------------

    async def _start_generation(self) -> None:
        self._newest += 1
        self._view.generation, self._view.ray = self._newest, {}
        plan = NodePlan(
            settings=self._settings,
            data_dir=self._data_dir,
            generation=self._newest,
            serve_pid=os.getpid(),
            link_port=self._link_port,
            link_token=self._link_token,
            cluster_token=self._cluster_token,
            grpc_port=self._grpc_port,
            entry_points=self._entry_points,
            cluster=self._cluster.place if self._cluster is not None else None,
        )
        generation = self._generations[self._newest] = await spawn_node(plan)
        generation.watchers.append(self._in_background(self._watch_node(generation)))

    async def _watch_node(self, generation: Generation) -> None:
        await generation.process.wait()
        self._lose(generation, "the node's Ray driver ended")

    async def _watch_ray(self, generation: Generation, name: str, pid: int) -> None:
        await wait_for_exit(pid)
        self._lose(generation, f"Ray's {name} (pid {pid}) died")

    def _lose(self, generation: Generation, why: str) -> None:
        """Its actors may still serve, but nothing restarts them: the next generation is started beside it."""
        if generation.lost or self._view.phase == "stopping" or generation.number not in self._generations:
            return
        generation.lost = True
        put_ray_to_rest(generation)
        if generation.number != self._newest:
            return
        self._note_trouble(why, "its actors serve on while another Ray is started beside it")
        self._missing_since.clear()
        self._generations_failed = 0 if generation.complete else self._generations_failed + 1
        serves_without = self._cluster is not None and self._has_served  # its head may be away for long
        if self._generations_failed >= GENERATIONS_TRIED_MAX and not serves_without:
            self._fail(f"{why}; {self._generations_failed} starts in a row failed, see {self._data_dir}/logs/node.log")
        else:
            self._in_background(self._start_generation())

    async def _end_generation(self, number: int) -> None:
        generation = self._generations.pop(number, None)
        if generation is not None:
            await end_generation(generation, self._data_dir)
            reap_orphans({pid for other in self._generations.values() for pid in (other.process.pid, *other.ray_pids)})

    # --- members ----------------------------------------------------------------------------------------------------

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
            if is_host(member.role):
                self._frame_ports[member.role] = int(member.facts.get("frame_port", 0))
        self._mend()

    def _member_left(self, member: MemberLink) -> None:
        self._members.remove(member)
        if self._cluster is not None and is_host(member.role):
            self._in_background(self._cluster.host_ended(member.role, member.pid))
        if self._view.phase == "stopping":
            return
        generation = self._generations.get(member.generation)
        if generation is not None and not generation.lost and member.role != NODE:
            self._view.restarts[member.role] = self._view.restarts.get(member.role, 0) + 1
            self._missing_since[member.role] = time.monotonic()
            self._slow_down(member.role)
            self._note_trouble(f"{member.role} (pid {member.pid}) ended", "Ray restarts it")
        self._mend()

    def _slow_down(self, role: str) -> None:
        """A role that keeps ending is activated with growing pauses: mending must not eat the machine."""
        now = time.monotonic()
        ends = self._ends[role] = [end for end in self._ends.get(role, ()) if now - end < ENDS_COUNTED_S] + [now]
        if len(ends) > ENDS_AT_ONCE_MAX:
            pause_s = min(FAILURE_PAUSE_S_MAX, FAILURE_PAUSE_S_MIN * 2 ** (len(ends) - ENDS_AT_ONCE_MAX))
            self._activate_not_before[role] = max(now + pause_s, self._activate_not_before.get(role, 0.0))

    def _node_changed(self, member: MemberLink) -> None:
        generation = self._generations.get(member.generation)
        if generation is None:
            return
        if member.state is MemberState.FAILED:
            self._announcer.say("ray_failed", str(member.facts.get("error")))
        elif not generation.ray:
            pids = {str(name): int(pid) for name, pid in member.facts["ray"].items()}
            if generation.number == self._newest:
                self._view.ray = pids
            for name, pid in pids.items():
                if (process := process_id(pid)) is not None:
                    generation.ray[name] = process
                generation.watchers.append(self._in_background(self._watch_ray(generation, name, pid)))

    def _service_failed(self, member: MemberLink) -> None:
        error = str(member.facts.get("error"))
        if member.facts.get("kind") == "EndProcess":  # it served, and ended itself rather than believe its memory
            self._announcer.say("service_ended", f"{member.role}: {error}", role=member.role)
            return
        count = self._failures[member.role] = self._failures.get(member.role, 0) + 1
        pause_s = min(FAILURE_PAUSE_S_MAX, FAILURE_PAUSE_S_MIN * 2**count)
        self._activate_not_before[member.role] = time.monotonic() + pause_s
        self._announcer.say(
            "service_failed", f"{member.role}: {error}", role=member.role, kind=member.facts.get("kind")
        )
        if is_host(member.role) and member.facts.get("kind") == "OSError":
            self._frame_ports.pop(member.role, None)  # perhaps somebody else has it by now
        allowed = FAILURES_IN_A_ROW_MAX if self._has_served else FAILURES_AT_START_MAX
        if member.role == WEBHOOKS:
            return  # the rest serves without it
        if member.facts.get("fatal") or count >= allowed:
            self._fail(f"{member.role}: {error}")

    def _mend(self) -> None:
        """Do what ``mending`` says, then tell the world how things are."""
        if self._view.phase == "stopping":
            return
        if self._newest not in self._generations:
            return  # it is just being started
        for action in next_actions(self._members, self._generations, self._shape):
            if isinstance(action, EndGeneration):
                self._in_background(self._end_generation(action.number))
                continue
            member = action.member
            assert isinstance(member, MemberLink)
            if isinstance(action, Stop):
                member.stop(drain_ms_max := self._drain_ms_max(member))
                self._stop_deadlines[member.pid] = time.monotonic() + drain_ms_max / 1000 + STOP_GRACE_S
            elif isinstance(action, Activate) and time.monotonic() >= self._activate_not_before.get(member.role, 0.0):
                member.activate(frame_port=self._frame_ports.get(member.role, 0), host=self._host_facts())
        self._note_progress()

    def _host_facts(self) -> dict[str, Any] | None:
        """What the host that serves says of itself; None while none does."""
        return next((m.facts for m in self._members if is_host(m.role) and m.state is MemberState.SERVING), None)

    def _note_progress(self) -> None:
        if is_complete(self._members, self._newest, self._shape):
            self._generations[self._newest].complete = True
            self._generations_failed = 0
            self._view.phase = "serving"
            if not self._has_served:
                self._say_ready()
            elif self._trouble_since is not None:
                seconds = time.monotonic() - self._trouble_since
                self._announcer.say("mended", f"mended: everything serves again after {seconds:.1f} s", seconds=seconds)
            self._trouble_since = None
        elif self._has_served:
            self._view.phase = "mending"
        self._tell_the_world()

    def _say_ready(self) -> None:
        self._has_served = True
        self._tell_the_world()  # who waits for READY may read ready.json
        grpc, http, seconds = self._view.grpc, f"http://{self._view.http}", time.monotonic() - self._started_at
        message = f"READY grpc={grpc} http={http} ({seconds:.1f} s)"
        self._announcer.say("ready", message, grpc=grpc, http=http, pid=os.getpid(), seconds=round(seconds, 3))

    def _note_trouble(self, what: str, consequence: str) -> None:
        if self._trouble_since is None:
            self._trouble_since = time.monotonic()
        self._announcer.say("trouble", f"{what}; {consequence}")

    # --- the clock --------------------------------------------------------------------------------------------------

    def _look_at_the_clock(self) -> None:
        """Whoever is too late, too silent or too slow to stop is ended; Ray or the next generation replaces it."""
        if told := self._disk.crossed():
            self._announcer.say("disk", told)
        now, loop_now = time.monotonic(), asyncio.get_running_loop().time()
        for member in list(self._members):
            quiet_s = loop_now - member.heard_at
            silent = member.state is not MemberState.STARTING and quiet_s * 1000 > self._settings.silence_ms_max
            overdue = member.state is not MemberState.STOPPED and now > self._stop_deadlines.get(member.pid, now)
            if silent or overdue:
                self._note_trouble(f"{member.role} (pid {member.pid}) does not answer", "it is ended")
                member.state = MemberState.FAILED  # whatever it said last: it serves no more
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
        generation = self._generations.get(self._newest)
        if generation is not None and not generation.lost:
            missing = [role for role, since in self._missing_since.items() if now - since > MEMBER_BACK_WITHIN_S]
            if missing:
                self._lose(generation, f"Ray did not restart {', '.join(missing)}")
            elif self._is_late(generation, now):
                self._lose(generation, f"the node did not come up within {COMPLETE_WITHIN_S:g} s")
        self._mend()

    def _is_late(self, generation: Generation, now: float) -> bool:
        """Whether it should be complete by now. A host that replays takes the time it takes."""
        replaying = any(is_host(m.role) and m.state is MemberState.STARTING for m in self._members)
        return not generation.complete and not replaying and now - generation.started_at > COMPLETE_WITHIN_S

    def _fail(self, why: str) -> None:
        self._give_up_because = self._give_up_because or why
        self._attention.set()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)
        return task

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"a bug in the supervisor: {error!r}")

    # --- what others may know ---------------------------------------------------------------------------------------

    def _tell_the_world(self) -> None:
        state = ready_state(self._view)
        if state != self._ready_written:
            self._ready_written = state
            write_ready(self._data_dir, state)

    async def _livez(self) -> Answer:
        return text_answer(200, "alive\n")

    async def _readyz(self) -> Answer:
        return ready_page(self._view)

    async def _metrics(self) -> Answer:
        return await metrics_page(self._view)
