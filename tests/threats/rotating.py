"""A state folder whose gate takes new keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moat import AuditLog, Moat
from threats.saved import Place


class Rotating(Place):
    """A state folder whose gate takes new keys."""

    @property
    def home(self) -> Path:
        return self.state / "gates" / "main"

    def rotate(self, **more: Any) -> Any:
        done = Moat.rotate_gate(self.state, clock=self.clock, **more)
        assert done.former == self.gate
        self.gate = done.id
        return done

    def verify(self, number: int = 1) -> Any:
        """The gate's log against the one before it."""
        former = self.home / "former" / str(number) / "log"
        return AuditLog.verify(self.home / "log", log=self.gate, former=former)
