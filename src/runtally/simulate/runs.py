"""The runs of a slot of time: a pure function of (estate, slot).

A run is a list of *steps*, the states that it passes through with their times; the run as it is at any instant is
its last step up to then. A slot is ten seconds wide and holds the runs that are expected to start in it, or in the
minutes after it where they wait for others; their steps begin at most `LEAD_US` before the slot and end at most
`LIFE_US` after it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from .estate import ADJECTIVES, ANIMALS, BACKGROUND_TASKS, Deployment, Estate, Flow, FlowKind

SLOT_US: Final = 10_000_000
LEAD_US: Final = 30 * 60_000_000
LIFE_US: Final = 3 * 3_600_000_000
RUNS_A_SLOT: Final = 29
"""Exactly: 2.9 runs a second, so that a day stays below 260,000."""

_SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INCIDENT_US: Final = 15 * 60 * _SECOND
_encode = msgspec.json.Encoder().encode


class Step(NamedTuple):
    """A state that a run enters at `at` (µs), and its times from then on (µs; total is run time so far)."""

    at: int
    state_type: str
    state_name: str
    expected: int | None
    start: int | None = None
    end: int | None = None
    total: int | None = None


class Run(NamedTuple):
    """A run and all its steps, in order of time; `data` is what no step changes."""

    entity: str
    key: str
    data: dict[str, Any]
    steps: list[Step]

    def event(self, index: int) -> bytes:
        """The full snapshot of the run at a step, as a message's value."""
        step = self.steps[index]
        at = _time(step.at)
        return _encode(
            {
                "entity": self.entity,
                "action": "upsert",
                "occurred": at,
                "data": {
                    **self.data,
                    "state_type": step.state_type,
                    "state_name": step.state_name,
                    "state_timestamp": at,
                    "expected_start_time": _time(step.expected),
                    "start_time": _time(step.start),
                    "end_time": _time(step.end),
                    **({"total_run_time": (step.total or 0) / _SECOND} if self.entity == "task_run" else {}),
                },
            }
        )


def runs(estate: Estate, slot: int) -> Iterator[Run]:
    """The runs of a slot, each flow run before its task runs."""
    rng = random.Random(f"{estate.seed}:{slot}")
    left = RUNS_A_SLOT
    for _ in range(rng.choice((0, 1, 1, 2))):
        yield _background(rng, slot)
        left -= 1
    flows = list(estate.flows.values())
    weights = [flow.kind.weight for flow in flows]
    while left:
        flow = rng.choices(flows, weights)[0]
        expected = slot * SLOT_US + rng.randrange(10) * _SECOND
        for run in _FlowRun(rng, estate, flow, expected, left).runs():
            yield run
            left -= 1


class _FlowRun:
    """One flow run and all below it, within a budget of runs."""

    def __init__(
        self, rng: random.Random, estate: Estate, flow: Flow, expected: int, budget: int, parent: Run | None = None
    ) -> None:
        self.rng = rng
        self.estate = estate
        self.flow = flow
        self.parent = parent
        self.id = _uuid(rng)
        self.expected = expected
        self.budget = budget
        self.deployment: Deployment | None = None
        if flow.deployments and parent is None and rng.random() < 0.92:
            self.deployment = rng.choice(flow.deployments)
        self.fate = self._fate()
        self.fails = flow.kind.fails * (8 if _incident(flow, expected) else 1)

    def _fate(self) -> str:
        drawn = self.rng.random()
        if self.parent is not None:
            return "ends"
        for fate, share in (("crashes", 0.012), ("cancelled", 0.008), ("skipped", 0.01), ("stuck", 0.004)):
            if drawn < share:
                return fate
            drawn -= share
        return "ends"

    def runs(self) -> Iterator[Run]:
        """The flow run, then its task runs, then its subflow run with what is below."""
        rng, kind = self.rng, self.flow.kind
        start = self.expected + int(rng.expovariate(1 / 4) * _SECOND) + rng.randrange(_SECOND)
        if rng.random() < 0.03:
            start += int(rng.uniform(60, 900) * _SECOND)
        start = min(start, self.expected + LIFE_US // 6)
        count = min(rng.randint(*kind.fan), self.budget - 1)
        with_child = kind.child is not None and self.parent is None and count >= 8
        below = count // 3 if with_child else 0
        tasks: list[Run] = []
        if self.fate not in ("skipped", "stuck"):
            tasks = [self._task(index, start) for index in range(count - below)]
        end = max((task.steps[-1].at for task in tasks), default=start + _SECOND) + 200_000
        child: list[Run] = []
        if below and tasks and kind.child:
            # The last task run stands for a subflow run and ends with it.
            deputy = tasks[-1]
            flow = self.estate.flows[kind.child]
            child = list(_FlowRun(rng, self.estate, flow, deputy.steps[0].at, below, deputy).runs())
            tasks[-1] = _deputy(deputy, child[0])
            end = max(end, tasks[-1].steps[-1].at + 200_000)
        if self.fate in ("crashes", "cancelled") and tasks:
            end = start + int((end - start) * rng.uniform(0.2, 0.9))
            tasks = [self._cut(task, end) for task in tasks if task.steps[0].at <= end]
            child = [self._cut(run, end) for run in child if run.steps[0].at <= end]
        failed = any(task.steps[-1].state_type == "FAILED" for task in tasks)
        yield self._flow_run(start, end, failed)
        yield from tasks
        yield from child

    def _flow_run(self, start: int, end: int, failed: bool) -> Run:
        rng, flow, expected = self.rng, self.flow, self.expected
        deployment, parent = self.deployment, self.parent
        steps: list[Step] = []
        if deployment is not None:
            lead = expected - int(rng.uniform(0.2, 0.9) * LEAD_US)
            steps.append(Step(lead, "SCHEDULED", "Scheduled", expected))
        if start - expected > 15 * _SECOND or self.fate == "stuck":
            steps.append(Step(expected + 15 * _SECOND, "SCHEDULED", "Late", expected))
        if self.fate == "stuck":
            # Nobody serves its queue; after hours somebody cancels most of them.
            if rng.random() < 0.7:
                steps.append(Step(expected + LIFE_US // 2, "CANCELLED", "Cancelled", expected, None, None))
        elif self.fate == "skipped":
            steps.append(Step(start, "COMPLETED", "Skipped", expected, None, start))
        else:
            steps.append(Step(max(expected, start - 400_000), "PENDING", "Pending", expected))
            steps.append(Step(start, "RUNNING", "Running", expected, start))
            if self.fate == "cancelled":
                steps.append(Step(max(start, end - 3 * _SECOND), "CANCELLING", "Cancelling", expected, start))
            last = {
                "crashes": ("CRASHED", "Crashed"),
                "cancelled": ("CANCELLED", "Cancelled"),
                "ends": ("FAILED", "Failed") if failed else ("COMPLETED", "Completed"),
            }[self.fate]
            steps.append(Step(end, *last, expected, start, end))
        data: dict[str, Any] = {
            "id": self.id,
            "flow_id": flow.id,
            "flow_name": flow.kind.name,
            "name": f"{rng.choice(ADJECTIVES)}-{rng.choice(ANIMALS)}",
            "tags": [*flow.kind.tags, *(deployment.tags if deployment else ())],
            "flow_version": "3" if expected // (86_400 * _SECOND) % 2 else "4",
        }
        if deployment is not None:
            data.update(
                deployment_id=deployment.id,
                deployment_name=deployment.name,
                work_queue_name=deployment.work_queue_name,
                idempotency_key=f"scheduled {deployment.id} {expected // _SECOND}",
                created_by={"id": deployment.id, "type": "SCHEDULE"},
            )
        if parent is not None:
            data.update(parent_task_run_id=parent.data["id"], parent_flow_run_id=parent.data["flow_run_id"])
        return Run("flow_run", self.id, data, sorted(steps))

    def _task(self, index: int, flow_start: int) -> Run:
        rng, kind = self.rng, self.flow.kind
        names = kind.tasks
        # Half of a flow's task runs follow one another, half run side by side.
        expected = flow_start + int((index // 3) * kind.seconds * 0.7 * _SECOND) + int(rng.random() * _SECOND)
        data = {
            "id": _uuid(rng),
            "flow_run_id": self.id,
            "name": f"{names[index * len(names) // (index + len(names))]}-{int(rng.random() * 4096):03x}",
            "tags": list(kind.tags[:1]),
        }
        return Run("task_run", self.id, data, _task_steps(rng, kind, self.fails, expected))

    def _cut(self, run: Run, end: int) -> Run:
        """The run as it goes when its flow run ends before it: what waits to begin never does."""
        kept = [step for step in run.steps if step.at <= end]
        last = kept[-1]
        if last.state_type == "RUNNING":
            state = ("CRASHED", "Crashed") if self.fate == "crashes" else ("CANCELLED", "Cancelled")
            ran = end - (last.start or end)
            kept.append(Step(end, *state, last.expected, last.start, end, ran))
        return run._replace(steps=kept)


def _task_steps(rng: random.Random, kind: FlowKind, fails: float, expected: int) -> list[Step]:
    drawn = rng.random()
    steps = [Step(expected, "PENDING", "Pending", expected)]
    if drawn < kind.cached:
        at = expected + 60_000 + rng.randrange(100_000)
        return [*steps, Step(at, "COMPLETED", "Cached", expected, None, at, 0)]
    start = expected + 100_000 + int(rng.expovariate(2) * _SECOND)
    total = 0
    at = start
    name = "Running"
    for attempt in range(2):
        ran = 50_000 + int(min(rng.expovariate(1 / kind.seconds), 20 * kind.seconds) * _SECOND)
        steps.append(Step(at, "RUNNING", name, expected, start, None, total))
        at, total = at + ran, total + ran
        if attempt or rng.random() >= kind.retries:
            break
        expected = at + rng.choice((10, 30, 60)) * _SECOND
        steps.append(Step(at, "SCHEDULED", "AwaitingRetry", expected, start, None, total))
        at, name = expected + rng.randrange(_SECOND), "Retrying"
    state = ("COMPLETED", "Completed")
    if rng.random() < fails:
        state = ("FAILED", "Failed")
    elif kind.custom and rng.random() < kind.custom[2]:
        state = kind.custom[:2]
    return [*steps, Step(at, *state, expected, start, at, total)]


def _background(rng: random.Random, slot: int) -> Run:
    """A task run without a flow run: scheduled ahead, sometimes late, now and then never started."""
    expected = slot * SLOT_US + rng.randrange(SLOT_US)
    steps = [Step(expected - int(rng.random() ** 2 * LEAD_US), "SCHEDULED", "Scheduled", expected)]
    drawn = rng.random()
    start = expected + int(rng.expovariate(1) * _SECOND)
    if drawn < 0.10:
        steps.append(Step(expected + 15 * _SECOND, "SCHEDULED", "Late", expected))
        start = expected + int(rng.uniform(20, 1200) * _SECOND)
    if drawn > 0.03:
        end = start + int(rng.expovariate(1 / 6) * _SECOND) + 20_000
        state = ("FAILED", "Failed") if rng.random() < 0.03 else ("COMPLETED", "Completed")
        steps.append(Step(start, "RUNNING", "Running", expected, start, None, 0))
        steps.append(Step(end, *state, expected, start, end, end - start))
    identity = _uuid(rng)
    name = f"{rng.choice(BACKGROUND_TASKS)}-{int(rng.random() * 4096):03x}"
    return Run("task_run", identity, {"id": identity, "flow_run_id": None, "name": name, "tags": ["background"]}, steps)


def _deputy(task: Run, child: Run) -> Run:
    """The task run that stands for a subflow run: it runs while that runs and ends as that ends."""
    pending = task.steps[0]
    run: list[Step] = [pending]
    for step in child.steps:
        if step.state_type == "RUNNING":
            run.append(Step(step.at, "RUNNING", "Running", pending.expected, step.at, None, 0))
        elif step.end is not None:
            ran = step.end - (step.start or step.end)
            run.append(Step(step.at, step.state_type, step.state_name, pending.expected, step.start, step.end, ran))
    return task._replace(data={**task.data, "child_flow_run_id": child.data["id"]}, steps=run)


def _incident(flow: Flow, at: int) -> bool:
    """Now and then a flow fails for a quarter of an hour."""
    return random.Random(f"{flow.id}:{at // _INCIDENT_US}").random() < 0.03


def _time(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def _uuid(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
