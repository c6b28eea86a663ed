"""What a machine can do at best: the roofline (Williams, Waterman & Patterson 2009)."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.formulas import symbols


@dataclass(frozen=True)
class Hardware:
    """A machine's two ceilings: FLOP/s for one dtype, and bytes/s of memory."""

    name: str
    flops_per_second: float
    bytes_per_second: float

    @property
    def ridge(self) -> float:
        """FLOPs per byte above which compute, not memory, is the limit."""
        return self.flops_per_second / self.bytes_per_second


def intensity(flops: float, bytes: float) -> float:
    """FLOPs done for each byte read."""
    return flops / bytes


def roofline_seconds(flops: float, bytes: float, hardware: Hardware) -> float:
    """The least time the work can take: it must do its FLOPs and read its bytes, and can at best
    overlap the two.
    """
    return flops / symbols.attainable_flops(
        intensity(flops, bytes), hardware.flops_per_second, hardware.bytes_per_second
    )
