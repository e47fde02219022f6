"""`ray.util.tracing`: every execution is in the control store (`ray.timeline`); there are no OpenTelemetry hooks."""
