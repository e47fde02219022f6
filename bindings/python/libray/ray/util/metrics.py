"""`ray.util.metrics`: Counter, Gauge and Histogram. See `libray._metrics` for where the numbers go."""

from libray._metrics import Counter, Gauge, Histogram, Metric, collect, prometheus_text

__all__ = ["Counter", "Gauge", "Histogram", "Metric", "collect", "prometheus_text"]
