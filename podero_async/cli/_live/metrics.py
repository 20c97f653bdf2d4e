"""The metrics of a backfill in the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import attrs

from podero_async.backfill import Progress
from podero_async.cli._live.watch import Watch

__all__ = ["metrics_of"]

_PHASES: tuple[str, ...] = get_args(attrs.fields(Progress).phase.type)


@attrs.frozen
class _Metric:
    name: str
    kind: Literal["counter", "gauge"]
    help: str
    values: Mapping[str, float]
    """The values by that of the label; the label of a metric without one is empty."""
    label: str = ""

    def lines(self) -> Iterator[str]:
        name = f"podero_backfill_{self.name}"
        yield f"# HELP {name} {self.help}"
        yield f"# TYPE {name} {self.kind}"
        for label, value in self.values.items():
            yield f'{name}{{{self.label}="{label}"}} {value!r}' if self.label else f"{name} {value!r}"


def metrics_of(watch: Watch) -> str:
    """Return the metrics of now. No label has an id, so their number is bounded."""
    return "".join(f"{line}\n" for metric in (*_of_run(watch), *_of_client(watch)) for line in metric.lines())


def _of_run(watch: Watch) -> Iterator[_Metric]:
    progress = watch.progress
    phases = {each: int(each == progress.phase) for each in _PHASES}
    yield _Metric("phase", "gauge", "1 for the phase in which the run is.", phases, "phase")
    yield _gauge("start_time_seconds", "Unix time of the start of the run.", round(watch.started, 3))
    yield _gauge("vehicles", "Vehicles of the run; those found so far, during the discovery.", progress.vehicles)
    yield _gauge("vehicles_up_to_date", "Vehicles that needed no request.", progress.skipped)
    yield _gauge("windows", "Windows of vehicles to read in this run.", progress.work_items)
    verdicts = {verdict.value: count for verdict, count in progress.verdicts.items()}
    text = "Windows of vehicles that were read, by the verdict on their completeness."
    yield _Metric("windows_read_total", "counter", text, verdicts, "completeness")
    text = "Vehicles and lists of vehicles that failed, by the kind of the error."
    yield _Metric("failures_total", "counter", text, dict(progress.failed_by_kind), "cause")
    yield _counter("sessions_received_total", "Sessions received.", progress.received_sessions)
    changes = attrs.asdict(progress.committed)
    yield _Metric("sessions_committed_total", "counter", "Sessions committed, by what they changed.", changes, "change")
    yield _gauge("alarms", "Reasons why the result is not clean, as far as known.", len(progress.alarms))


def _of_client(watch: Watch) -> Iterator[_Metric]:
    now = watch.statistics()
    yield _counter("requests_total", "HTTP requests, with retries and without token requests.", now.requests)
    yield _counter("retries_total", "Requests that repeated a failed one.", now.retries)
    yield _counter("token_requests_total", "Requests to the token endpoint.", now.token_requests)
    yield _gauge("requests_in_flight", "Requests in flight.", now.in_flight)
    yield _gauge("requests_queued", "Requests that wait until they may be sent.", now.queued)
    yield _gauge("concurrency_limit", "Requests that may be in flight.", now.limit)
    yield _counter("pauses_total", "Pauses that the API has asked for.", now.pauses)
    yield _gauge("pause_left_seconds", "Time until the current pause ends.", round(now.paused_for_s, 3))
    yield _gauge("breaker_open", "1 while all recent requests to an endpoint have failed.", int(now.is_breaker_open))


def _counter(name: str, text: str, value: int) -> _Metric:
    return _Metric(name, "counter", text, {"": value})


def _gauge(name: str, text: str, value: float) -> _Metric:
    return _Metric(name, "gauge", text, {"": value})
