"""Settings of consumers of the change feed: ``[consumers.<id>]``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from actors.domain.consumer_state import ConsumerLimits
from actors.runtime.setting_values import DurationMs

DAY_MS = 24 * 3600 * 1000


class ConsumerSettings(BaseModel):
    """A named reader of changes whose place is kept. Past a limit it is alerted; 0: no limit. ``retention_ms``: how long
    records are kept for it at most, beyond what is kept anyway. ``principal``: who may read and acknowledge as it, besides
    operators (needs credentials)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    lag_events_max: int = Field(1_000_000, ge=0)
    lag_ms_max: DurationMs = 15 * 60 * 1000
    retention_ms: DurationMs = 14 * DAY_MS
    principal: str = ""

    def limits(self) -> ConsumerLimits:
        """What the domain needs of it."""
        return ConsumerLimits(self.lag_events_max, self.lag_ms_max, self.retention_ms)
