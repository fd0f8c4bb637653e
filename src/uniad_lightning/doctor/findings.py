"""What a check found, as a line."""

from typing import NamedTuple

OK, NOTE, BROKEN = "ok", "note", "BROKEN"  # as it should be; something optional is missing; something needed is


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        state: `OK`, `NOTE` or `BROKEN`.
        subject: what was looked at.
        found: what is there.
        remedy: what to do; empty where nothing has to be done.
    """

    state: str
    subject: str
    found: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """The finding in one line."""
        return f"{self.state:6}  {self.subject}: {self.found}{f'; {self.remedy}' if self.remedy else ''}"
