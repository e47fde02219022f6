"""`LoggingConfig`: how the logging module is set up in a driver and its workers. `init(logging_config=...)` applies it
in the driver and hands it to the workers by the environment; each applies it before its first task."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from typing import Any, List, Optional

from .. import _libray

ENVIRONMENT = "LIBRAY_LOGGING"  # the configuration as JSON, for workers
_TEXT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
_ENCODINGS = ("TEXT", "JSON")


@dataclass
class LoggingConfig:
    """`encoding` is "TEXT" or "JSON" (one object a line, with the ids of job, worker, node, actor and task).
    `additional_log_standard_attrs` names further attributes of logging's records."""

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: List[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in _ENCODINGS:
            raise ValueError(
                f"Invalid encoding type: {self.encoding}. Valid encoding types are: {list(_ENCODINGS)}"
            )
        known = vars(logging.makeLogRecord({}))
        for name in self.additional_log_standard_attrs:
            if name not in known and name not in ("message", "asctime"):
                raise ValueError(f"Unknown python logging standard attribute: {name}")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def _configure_logging(self) -> None:
        self.apply()

    def apply(self) -> None:
        """Sets up the root logger of this process."""
        handler = logging.StreamHandler()
        handler.setFormatter(_Json(self) if self.encoding == "JSON" else logging.Formatter(_TEXT))
        root = logging.getLogger()
        for old in [h for h in root.handlers if getattr(h, "_libray", False)]:
            root.removeHandler(old)
        handler._libray = True  # type: ignore[attr-defined]
        root.addHandler(handler)
        root.setLevel(self.log_level)


LoggingConfig.__module__ = "libray"  # also for pickles: where programs find it


class _Json(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, config: LoggingConfig) -> None:
        super().__init__()
        self.additional = config.additional_log_standard_attrs

    def format(self, record: logging.LogRecord) -> str:
        out = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            **_ids(),
        }
        for name in self.additional:
            out[name] = getattr(record, name, None)
        usual = vars(logging.makeLogRecord({}))
        out.update({k: v for k, v in vars(record).items() if k not in usual and k not in out})
        if record.exc_info:
            out["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(out, default=str)


def _ids() -> dict:
    if not _libray.is_initialized():
        return {}
    now = _libray.context()
    names = {"job": "job_id", "worker": "worker_id", "node": "node_id", "actor": "actor_id", "task": "task_id"}
    return {name: now[key] for key, name in names.items() if now.get(key) is not None}


def to_environment(config: Optional[Any]) -> str:
    if config is None:
        return ""
    if not isinstance(config, LoggingConfig):
        raise TypeError(f"logging_config must be a LoggingConfig, not {type(config)}")
    return config.to_json()


def set_up_own_loggers(level: Any, form: Optional[str]) -> None:
    """The package's own logger, under both its names; the program's loggers stay as they are."""
    for name in ("libray", "ray"):
        logger = logging.getLogger(name)
        logger.setLevel(level.upper() if isinstance(level, str) else level or logging.INFO)
        if not any(getattr(h, "_libray", False) for h in logger.handlers):
            handler = logging.StreamHandler()
            handler._libray = True  # type: ignore[attr-defined]
            logger.addHandler(handler)
            logger.propagate = False
        for own in [h for h in logger.handlers if getattr(h, "_libray", False)]:
            own.setFormatter(logging.Formatter(form or _TEXT))


def apply_in_worker() -> None:
    """What the driver's `init(logging_config=...)` asked for."""
    text = os.environ.get(ENVIRONMENT)
    if text:
        LoggingConfig(**json.loads(text)).apply()
