"""What this service measures, and its names."""

from __future__ import annotations

from typing import Final

from paracle_chassis.telemetry import Counter, Histogram

STORED: Final = Counter("paracle.observability.events.stored", "Events stored for the first time.", "{event}")
KNOWN: Final = Counter("paracle.observability.events.known", "Events that were there already.", "{event}")
REFUSED: Final = Counter("paracle.observability.events.refused", "Messages that are no events.", "{event}")
UNCOUNTED: Final = Counter("paracle.observability.events.uncounted", "Events whose usage is unreadable.", "{event}")
BURIED: Final = Counter("paracle.observability.dead_letters.kept", "Dead letters kept for the first time.", "{letter}")
SETTLED: Final = Counter(
    "paracle.observability.dead_letters.settled", "Dead letters redriven, dropped or expired.", "{letter}"
)
DROPPED: Final = Counter("paracle.observability.entities.dropped", "Entities whose time was over.", "{entity}")
MENDED: Final = Counter("paracle.observability.events.mended", "Missing events fetched from their owner.", "{event}")
MISSING: Final = Histogram(
    "paracle.observability.events.missing", "Events known to be missing, at every sweep.", "{event}"
)
LOST: Final = Histogram(
    "paracle.observability.histories.lost",
    "Histories that nobody can mend, at every sweep.",
    "{history}",
)
