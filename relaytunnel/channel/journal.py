"""
A line in the log for each session, written many at a time.

To format and write one event of Twisted's log takes longer than to serve a
small session, so lines that come in quick succession share an event.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, formatEvent

from relaytunnel.config.names import printable

__all__ = ["Journal"]

_TOGETHER = 0.1
_MOST_LINES = 1000
_LONGEST_LINE = 1024


class Journal:
    """
    Lines on their way to the log.
    """

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        self._clock = clock
        self._log = log
        self._lines: list[str] = []
        self._alarm: IDelayedCall | None = None

    def note(self, line: str) -> None:
        """
        Write a line: at once after a while of silence, else within a tenth of
        a second, with those that have come by then.
        """
        line = printable(line, _LONGEST_LINE)
        if self._alarm is None:
            self._log.info("{line}", line=line)
            self._alarm = self._clock.callLater(_TOGETHER, self._write)
            return
        self._lines.append(line)
        if len(self._lines) >= _MOST_LINES:
            self._flush()

    def emit(self, level: object, format: str, **fields: object) -> None:  # noqa: A002
        """
        Write a line of these fields, as a C{Logger} does; all have one level here.
        """
        self.note(formatEvent({"log_format": format, **fields}))

    def _write(self) -> None:
        self._alarm = None
        if self._lines:
            self._flush()
            self._alarm = self._clock.callLater(_TOGETHER, self._write)

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._log.info("{lines}", lines="\n".join(lines), count=len(lines))

    def close(self) -> None:
        """
        Write what there is.
        """
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._flush()
