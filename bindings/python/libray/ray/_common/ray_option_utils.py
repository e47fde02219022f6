"""`ray._common.ray_option_utils` (once `ray._private.ray_option_utils`): the options of tasks and actors, and
their checks, as libraries that add options of their own look at them."""

from typing import Any, Dict

from libray.api import options as _options


class Option:
    """One option: its check, and what it is when nobody says."""

    def __init__(self, check: Any, default_value: Any = None) -> None:
        self._check = check
        self.default_value = default_value

    def validate(self, keyword: str, value: Any) -> None:
        """TypeError or ValueError when the option cannot have this value."""
        self._check(keyword, value)


_DEFAULTS: Dict[str, Any] = {
    "allow_out_of_order_execution": None,
    "enable_task_events": True,
    "get_if_exists": False,
    "max_pending_calls": -1,
    "max_restarts": 0,
    "max_task_retries": 0,
    "max_calls": 0,
    "max_retries": 3,
    "placement_group": "default",
    "placement_group_bundle_index": -1,
    "retry_exceptions": False,
}

task_options: Dict[str, Option] = {
    name: Option(check, 1 if name == "num_cpus" else _DEFAULTS.get(name))
    for name, check in _options.TASK.items()
}
actor_options: Dict[str, Option] = {
    name: Option(check, _DEFAULTS.get(name)) for name, check in _options.ACTOR.items()
}
valid_options: Dict[str, Option] = {**task_options, **actor_options}
update_options = _options.merged


def validate_task_options(options: Dict[str, Any], in_options: bool) -> None:
    _options.validate("remote functions", _options.TASK, options, in_options)


def validate_actor_options(options: Dict[str, Any], in_options: bool) -> None:
    _options.validate("actors", _options.ACTOR, options, in_options)
