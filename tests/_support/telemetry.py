"""The spans and metrics that an observer makes, read from OpenTelemetry's exporters in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from podero_async.otel import OpenTelemetryObserver


class Telemetry:
    """An SDK in memory, and an observer that uses it."""

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False, resource=Resource.get_empty())
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False, resource=Resource.get_empty())
        self.observer = OpenTelemetryObserver(self.tracer_provider, self.meter_provider)

    def spans(self, *names: str) -> list[ReadableSpan]:
        """Return the ended spans of these names, or all, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if not names or span.name in names]

    def span(self, name: str) -> ReadableSpan:
        """Return the only span of this name."""
        (span,) = self.spans(name)
        return span

    def metrics(self) -> dict[str, list[Any]]:
        """Return the data points of each metric."""
        return {
            metric.name: list(metric.data.data_points)
            for resource in self._metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def value(self, metric: str, **attributes: Any) -> float:
        """Return the sum of a metric's data points; attributes have `_` for each `.` of their names."""
        wanted = attributes.items()
        points = self.metrics().get(metric, [])
        return sum(float(point.value) for point in points if wanted <= _plain(point.attributes).items())

    def texts(self) -> list[str]:
        """Return all that was exported, as text."""
        metrics = self._metrics_data()
        return [*(span.to_json() for span in self.spans()), metrics.to_json()]

    def _metrics_data(self) -> MetricsData:
        return self._reader.get_metrics_data() or MetricsData([])


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace(".", "_"): value for name, value in attributes.items()}
