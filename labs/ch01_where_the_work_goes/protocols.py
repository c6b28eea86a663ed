"""How a measurement lies, one broken rule at a time.

`Machine` has a clock of its own and does what real ones do: the first calls are cold, work is
handed over and done later, somebody else runs now and then, and after a while it is hot and slows
down. On it the old version takes 10 ms and the new one 8, so that the new one is 1.25 times as
fast, and each `Protocol` says what it finds.
"""

import statistics

OLD, NEW = "old", "new"
MILLISECONDS = {OLD: 10.0, NEW: 8.0}
TRUTH = MILLISECONDS[OLD] / MILLISECONDS[NEW]
NEAR = 0.01  # so far from the truth, as a share, still counts as finding it


class Machine:
    """A clock, and work that takes its time."""

    cold = 40.0  # ms that the very first call takes longer
    launch = 0.02  # ms to hand work over, before it is waited for
    others = 11, 4.0  # each eleventh call takes four times as long
    hot = 45, 1.2  # from the 45th call on, each takes a fifth longer

    def __init__(self):
        self.now = 0.0
        self.done = 0.0
        self.calls = 0

    def hand_over(self, version: str, tokens: int = 300) -> None:
        """Ask for a run of a version on so many tokens: it is not done when this returns."""
        self.calls += 1
        took = MILLISECONDS[version] * tokens / 300
        took *= self.others[1] if self.calls % self.others[0] == 0 else 1
        took *= self.hot[1] if self.calls >= self.hot[0] else 1
        took += self.cold if self.calls == 1 else 0
        self.now += self.launch
        self.done = max(self.now, self.done) + took

    def wait(self) -> None:
        self.now = max(self.now, self.done)


class Protocol:
    """Warm up, wait, take turns, repeat, and report the median: all as it should be."""

    rule = "all as it should be"
    switch = ""
    seen_by = ""
    warmup = 2
    repeats = 30
    waits = True
    tokens = {OLD: 300, NEW: 300}  # noqa: RUF012

    def timed(self, machine: Machine, version: str) -> float:
        """Milliseconds of one run by the machine's own clock."""
        start = machine.now
        machine.hand_over(version, self.tokens[version])
        if self.waits:
            machine.wait()
        return machine.now - start

    def order(self) -> list[str]:
        """Which version runs when, after the warm-up."""
        return [OLD, NEW] * self.repeats

    def summary(self, milliseconds: list[float]) -> float:
        return statistics.median(milliseconds)

    def measure(self) -> dict[str, list[float]]:
        machine, times = Machine(), {OLD: [], NEW: []}
        for version in [OLD, NEW] * self.warmup:
            self.timed(machine, version)
        for version in self.order():
            times[version].append(self.timed(machine, version))
        return times

    def reports(self) -> tuple[float, float]:
        """Milliseconds of the new version, and how many times as fast it is, by this protocol."""
        times = self.measure()
        new = self.summary(times[NEW])
        return new, self.summary(times[OLD]) / new


class Cold(Protocol):
    rule = "warm up"
    switch = "one run of each, the first ones"
    seen_by = "the first run lies far from the second"
    warmup = 0
    repeats = 1


class Impatient(Protocol):
    rule = "wait for the device"
    switch = "the clock stops when the work is handed over"
    seen_by = "half the tokens take as long"
    waits = False


class InBlocks(Protocol):
    rule = "take turns"
    switch = "all runs of the old version, then all of the new"
    seen_by = "the old version, run again at the end, is slower"

    def order(self):
        return [OLD] * self.repeats + [NEW] * self.repeats


class Mean(Protocol):
    rule = "take the median"
    switch = "the mean, with somebody else on the machine"
    seen_by = "mean and median lie apart"

    def summary(self, milliseconds):
        return statistics.mean(milliseconds)


class OtherLengths(Protocol):
    rule = "fix the lengths"
    switch = "300 tokens in the old log, 256 in the new"
    seen_by = "the log has no lengths to compare"
    tokens = {OLD: 300, NEW: 256}  # noqa: RUF012


FAULTS = [Cold, Impatient, InBlocks, Mean, OtherLengths]


def bench(protocols=(Protocol, *FAULTS)) -> list[dict]:
    """A row for each protocol: the rule it breaks, what it finds, and what gives it away."""
    rows = []
    for kind in protocols:
        milliseconds, multiple = kind().reports()
        rows.append(
            {
                "rule": kind.rule,
                "broken by": kind.switch or "nothing",
                "new, ms": f"{milliseconds:.2f}",
                "times as fast": f"{multiple:.2f}",
                "given away, when": kind.seen_by or "–",
            }
        )
    return rows


# -- what gives each away, as a test -----------------------------------------------------------


def warmed_up(protocol: Protocol) -> bool:
    """No version's first run takes twice its second, or there is no second to compare with."""
    return all(
        len(ms) > 1 and ms[0] < 2 * statistics.median(ms) for ms in protocol.measure().values()
    )


def waited_for(protocol: Protocol) -> bool:
    """Half the tokens take less time."""
    machine = Machine()
    for version in [OLD, NEW] * 2:
        protocol.timed(machine, version)
    whole = protocol.timed(machine, OLD)
    half = type(protocol)()
    half.tokens = {OLD: 150, NEW: 150}
    return half.timed(machine, OLD) < 0.9 * whole


def took_turns(protocol: Protocol) -> bool:
    """The old version's times lie as early in the run as the new one's."""
    order = protocol.order()
    middle = {v: statistics.mean(i for i, o in enumerate(order) if o == v) for v in (OLD, NEW)}
    return abs(middle[OLD] - middle[NEW]) <= 1


def shrugs_off_others(protocol: Protocol) -> bool:
    """What is reported hardly moves when one run takes ten times as long."""
    calm = [10.0] * 9
    return protocol.summary([*calm, 100.0]) < 1.1 * protocol.summary(calm)


def same_work(protocol: Protocol) -> bool:
    """Both versions are given the same tokens."""
    return len(set(protocol.tokens.values())) == 1


TESTS = {
    "warm up": warmed_up,
    "wait for the device": waited_for,
    "take turns": took_turns,
    "take the median": shrugs_off_others,
    "fix the lengths": same_work,
}
