"""`Pace`: how long a run may report nothing before it counts as hung. Uses the caller's clock, and not Ray.

A run is judged by its own pace. With the seconds that it took per token so far, and the tokens between two of its
reports, the next report is expected after E seconds, at least its longest interval so far; the time to its first
report, with its start, is such an interval only until there is another. It hangs when it has
reported nothing for PATIENCE · E and for `least` seconds. Before its first report (also that of another attempt) the
limit is PATIENCE times what the other runs of the study let expect, by their seconds per FLOP and the longest time that
one of them took to start, and at least START · `least`, which has room for a start and a compilation. Until any run
has reported there is nothing to compare with, and the limit is `first`, unless its process is seen to do nothing:
a run hangs whose process is stopped, or uses less than IDLE_SHARE of a processor, for START · `least` seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from raylr.execution.executor import Job

PATIENCE = 8
"""Multiple of the expected interval. A run has at least 8 intervals (`validations` of the spec), so that waiting for a
hung run costs at most about what the run costs; neighbours on a shared node slow a run down by less."""
LEAST_SECONDS = 120.0
"""Default of `least`: a network file system that fails over to another server is away for one to two minutes."""
START = 5
"""Multiple of `least` before the first report: ten minutes, for imports over a network, and for a compilation."""
FIRST_SECONDS = 86_400.0
"""Default of `first`, a day: ending the first runs of a study before their first report would end every attempt of it
in the same way."""
IDLE_SHARE = 0.01
"""Share of one processor below which a process does nothing. One that trains, on a GPU too, uses most of one; the
threads of Ray in a process whose training waits forever use 0.002 to 0.005."""
WATCHED_SECONDS = 10.0
"""Most time that counts between two looks: while this process was stopped or busy, it could not hear anything."""
WATCHED_SHARE = 0.25
"""The same as a share of `least`, so that no run hangs because this process was stopped, and of at least a second."""


@dataclass
class _Heard:
    gap: float
    """Most tokens between two reports, as planned."""
    tokens: float
    """Of the last report."""
    at: float
    """Time of the last report that was new, or of the start."""
    alive: float
    """Time of the last sign of life."""
    started: bool = False
    """Whether this attempt has reported anything new."""
    first: tuple[float, float] = (0.0, 0.0)
    """Seconds and tokens up to the first report, with a start: what is known until there is another one."""
    longest: float = 0.0
    seconds: float = 0.0
    trained: float = 0.0
    """Longest interval, seconds and tokens between the reports of all attempts, without their starts."""
    ended: int = 0
    """How often it was ended for a hang; each doubles its limit."""
    worked: tuple[float, float] | None = None
    """Processor seconds of its process, and the time, when it was last seen to have worked; None: it was not looked
    at."""


@dataclass(frozen=True, kw_only=True)
class Silence:
    """A run that reports nothing."""

    job: Job
    seconds: float
    """For how long."""
    longest: float | None
    """Longest interval between two of its reports until then; None before its second."""
    idle: bool = False
    """Whether it hangs because its process does nothing."""


class Pace:
    """The paces of the runs of one study.

    Args:
        least: Seconds of silence that are never a hang, once a run has reported.
        first: Seconds of silence after which a run hangs while no run of the study has reported anything.
    """

    def __init__(self, least: float = LEAST_SECONDS, first: float = FIRST_SECONDS) -> None:
        self._least, self._first = least, max(first, START * least)
        self._most = min(WATCHED_SECONDS, max(WATCHED_SHARE * least, 1.0))
        self._runs: dict[Job, _Heard] = {}
        self._left: dict[Job, _Heard] = {}
        self._sizes: dict[str, tuple[float, float]] = {}
        """Size → seconds and FLOPs of its runs' intervals."""
        self._longest_start, self._share = 0.0, 0.0
        self._seen: float | None = None
        self._watched = 0.0

    def look(self, now: float) -> list[Silence]:
        """Return the runs that hang; to be called often, at least every `WATCHED_SECONDS`.

        Args:
            now: Seconds of a clock that never goes back.
        """
        if self._seen is not None:
            self._watched += min(max(now - self._seen, 0.0), self._most)
        self._seen = now
        found = []
        for job, heard in self._runs.items():
            seconds, idle = self._watched - heard.alive, self._is_idle(heard)
            if seconds > self.limit(job) or idle:
                found.append(Silence(job=job, seconds=seconds, longest=heard.longest or None, idle=idle))
        return found

    def silent(self) -> list[Job]:
        """Return the runs whose processes are worth a look, for `noticed`: no run has reported, for some time."""
        if self._sizes:
            return []
        return [job for job, heard in self._runs.items() if self._watched - heard.alive > self._least]

    def noticed(self, job: Job, cpu_seconds: float | None, *, stopped: bool = False) -> None:
        """Note what the process of a silent run does.

        Args:
            job: The job.
            cpu_seconds: Processor time that it has used so far; None: it may work without using any.
            stopped: Whether it is stopped, so that it does nothing in any case.
        """
        heard = self._runs.get(job)
        if heard is None:
            return
        used, enough = cpu_seconds or 0.0, IDLE_SHARE * self._idle_seconds(heard)
        works = not stopped and (cpu_seconds is None or heard.worked is None or used - heard.worked[0] >= enough)
        if works or heard.worked is None:
            heard.worked = used, self._watched

    def started(self, job: Job, tokens: float = 0) -> None:
        """Note that an attempt at a job began.

        Args:
            job: The job.
            tokens: Tokens up to which its losses are known: reports up to there are no news.
        """
        heard = self._left.pop(job, None) or _Heard(gap=_gap(job), tokens=tokens, at=0.0, alive=0.0)
        heard.at = heard.alive = self._watched
        heard.started, heard.worked = False, None
        self._runs[job] = heard

    def heard(self, job: Job, tokens: float) -> None:
        """Note a report.

        Args:
            job: The job.
            tokens: Tokens up to which its losses are known now.
        """
        heard = self._runs.get(job)
        if heard is None:
            return
        heard.alive = self._watched
        if tokens <= heard.tokens:
            return
        interval, trained = self._watched - heard.at, tokens - heard.tokens
        if not heard.started:
            trained = min(trained, heard.gap)  # a decay that begins at the end of a trunk has trained little of this
            self._longest_start = max(self._longest_start, interval)
            heard.first = interval, trained
        else:
            heard.longest = max(heard.longest, interval)
            heard.seconds, heard.trained = heard.seconds + interval, heard.trained + trained
        heard.started, heard.at, heard.tokens = True, self._watched, tokens
        self._share = max(self._share, trained / max(job.tokens, 1))
        seconds, flops = self._sizes.get(job.size, (0.0, 0.0))
        self._sizes[job.size] = seconds + interval, flops + trained * _flops(job)

    def left(self, job: Job, *, hung: bool = False) -> None:
        """Note that an attempt ended; its pace is kept for the next one.

        Args:
            job: The job.
            hung: Whether it was ended because it hung.
        """
        heard = self._runs.pop(job, None)
        if heard is not None:
            heard.ended += hung
            self._left[job] = heard

    def forget(self, job: Job) -> None:
        """Note that there will be no further attempt."""
        self._runs.pop(job, None)
        self._left.pop(job, None)

    def limit(self, job: Job) -> float:
        """Return the seconds of silence after which the job hangs, as things are."""
        heard = self._runs[job]
        gap = max(heard.gap, self._share * job.tokens)  # a function may report less often than requested
        seconds, trained = (heard.seconds, heard.trained) if heard.trained else heard.first
        longest = heard.longest or heard.first[0]
        own = PATIENCE * max(longest, seconds / trained * gap) if trained else 0.0
        if heard.started:
            return float(max(own, self._least) * 2**heard.ended)
        if not self._sizes:
            return float(self._first * 2**heard.ended)
        slowest = max(seconds / max(flops, 1.0) for seconds, flops in self._sizes.values())
        others = PATIENCE * max(slowest * gap * _flops(job), self._longest_start)
        return float(max(own, others, START * self._least) * 2**heard.ended)

    def _idle_seconds(self, heard: _Heard) -> float:
        return float(START * self._least * 2**heard.ended)

    def _is_idle(self, heard: _Heard) -> bool:
        """Whether its process did nothing for so long that the run hangs, while there are no runs to compare with."""
        if heard.worked is None or self._sizes:
            return False
        return self._watched - max(heard.worked[1], heard.alive) > self._idle_seconds(heard)


def _gap(job: Job) -> float:
    points = job.eval_at or (job.tokens,)
    return float(max((after - before for before, after in pairwise(points)), default=points[0]))


def _flops(job: Job) -> float:
    return job.flops_per_token or 1.0
