"""`ray.util.state.common`: rows, filters and limits."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

DEFAULT_LIMIT = 100
DEFAULT_RPC_TIMEOUT = 30
RAY_MAX_LIMIT_FROM_API_SERVER = RAY_MAX_LIMIT_FROM_DATA_SOURCE = 10_000

Filter = Tuple[str, str, Any]


class StateSchema(dict):
    """A row: its columns are keys and attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no column {name!r}") from None

    def asdict(self) -> Dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:
        return (type(self), (dict(self),))


class ActorState(StateSchema):
    """An actor."""


class TaskState(StateSchema):
    """One attempt of a task."""


class ObjectState(StateSchema):
    """An object."""


class NodeState(StateSchema):
    """A node."""


class WorkerState(StateSchema):
    """A worker process or a driver."""


class JobState(StateSchema):
    """A job."""


class PlacementGroupState(StateSchema):
    """A placement group."""


class RuntimeEnvState(StateSchema):
    """A runtime environment."""


class ClusterEventState(StateSchema):
    """Something that happened in the cluster."""


def matches(row: Dict[str, Any], filters: Sequence[Filter]) -> bool:
    for key, predicate, value in filters:
        found = row.get(key)
        if isinstance(found, str) and isinstance(value, str):
            equal = found.lower() == value.lower()
        elif isinstance(found, (int, float, bool)) and isinstance(value, str):
            equal = str(found).lower() == value.lower()
        else:
            equal = found == value
        if equal != (predicate == "="):
            return False
    return True


def check_filters(filters: Optional[List[Filter]], columns: Sequence[str]) -> List[Filter]:
    for each in filters or []:
        if len(each) != 3:
            raise ValueError(f"A filter is a tuple (key, predicate, value), got {each!r}")
        if each[1] not in ("=", "!="):
            raise ValueError(f"Unsupported filter predicate {each[1]!r}: use '=' or '!='.")
        if columns and each[0] not in columns:
            raise ValueError(
                f"The given filter key {each[0]!r} is not supported. Supported ones are: {sorted(columns)}"
            )
    return list(filters or [])


def check_limit(limit: int) -> int:
    if limit > RAY_MAX_LIMIT_FROM_API_SERVER:
        raise ValueError(
            f"Given limit {limit} exceeds the supported limit {RAY_MAX_LIMIT_FROM_API_SERVER}. Use a lower limit."
        )
    return limit
