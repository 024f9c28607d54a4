"""What a shard host must be told, and every bound it keeps, each with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass, field

EXIT_JOURNAL = 70  # the journal failed: the next owner replays
EXIT_BUG = 71  # an invariant broke: the next owner replays
EXIT_FENCED = 72  # another owner took a shard


DISK_FLOOR_HYSTERESIS_BYTES = 64 * 1024 * 1024  # claims are accepted again this far above the floor


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Plain and picklable. ``token``: what a gateway's hello must carry. Port 0: any free one."""

    host_id: str
    token: str = field(repr=False)
    shards: tuple[int, ...] | None = None  # what it takes over at its start; None: all there are
    address: str = "127.0.0.1"
    port: int = 0
    advertise_port: int = 0  # where gateways reach it, when something stands between; 0: where it listens
    links_max: int = 256  # gateways of a cluster, with room for reconnects
    link_frames_max: int = 16  # unanswered on one link, then it is not read; a gateway keeps two in flight
    turn_lines_max: int = 4_000  # about 60 ms of rules: what a late comer waits at most before his own turn
    queue_lines_per_shard_max: int = 20_000  # a third of a second of one shard; longer queues only make answers late
    stock_key_share_divisor: int = 4  # one stock key may fill a quarter of its shard's queue
    status_waiting_max: int = 64  # each is some 10 KB; more than one a gateway never waits
    overloaded_retry_ms: int = 100
    seal_ms_max: int = 2_000  # a shard that was let go and that nobody has taken over by then is taken back
    unavailable_retry_ms: int = 500
    peer_beat_ms: int = 500  # between hosts: how far each is, and its clock
    deferred_replies_max: int = 20_000  # callers that wait for what goes on over several hosts
    asks_max: int = 1_000  # items that wait for what other hosts must say first
    snapshot_after_events: int = 50_000  # per shard: bounds its replay to about a second
    snapshot_entities_per_slice: int = 250  # about 1 ms of encoding
    snapshot_pause_ms: float = 2.0  # between slices of about 1 ms: a third of a loop at most
    records_retention_ms: int = 7 * 24 * 3600 * 1000
    compact_interval_ms: int = 10 * 60 * 1000
    housekeeping_interval_ms: int = 1_000
    disk_floor_bytes: int = 256 * 1024 * 1024  # below it new claims are refused; facts, releases and expiry go on
    disk_floor_hysteresis_bytes: int = DISK_FLOOR_HYSTERESIS_BYTES
    change_log_bytes_max: int = 32 * 1024 * 1024  # some 300,000 changes: seconds of a busy host; older: the journal
    change_weight_max: int = 8_000  # changes and their lines in one answer: under a MiB
    change_polls_max: int = 128  # waiting for changes: one a gateway, and some that catch up
    change_reader_silence_ms_max: int = 15_000  # nobody asked for so long: nothing is recorded any more
    explain_records_max: int = 200  # looked through for the events behind a stock key
    explain_events_max: int = 20
    late_link_bytes_max: int = 64 * 1024 * 1024  # unsent replies on a link whose gateway does not read: it is closed
