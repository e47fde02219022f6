"""Where tasks and actors run: placement groups, node affinity, node labels.

A group's bundles are reserved by the node daemon. What an option says about placement travels as the entry
"placement" of the resources (see `_options.pack_resources`); that a task runs in a group travels in its note.
Called on any thread of a driver or worker.
"""

from __future__ import annotations

import json
import re
import warnings
from typing import Any, Dict, List, Optional, Sequence, Union

from .. import _libray, exceptions
from ..core import ids as _ids, runtime_env as _runtime_env
from ..core.definition import Definition

_STRATEGIES = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
_ID = 24  # bytes of an id in the C API
_LABELS = ("libray", b"node-labels")  # in the key-value store: those that init() was given
_WANTED = "node label "  # begins the resource that stands for a label that the node does not have

_PART = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = rf"(?:[A-Za-z0-9][-A-Za-z0-9.]{{0,252}}/)?{_PART}"  # compiled when there is one

PlacementGroupID = _ids.PlacementGroupID
_NIL = PlacementGroupID.nil()


def _packed(value: Any) -> bytes:
    return bytes(_libray.encode(value, False)[1])


def _query() -> List[Dict[str, Any]]:
    _libray.ensure()
    return [dict(row) for row in _libray.query("groups", b"")]


# ---- groups -------------------------------------------------------------------------------------------


class PlacementGroup:
    """A handle of a placement group: reserved bundles of resources in which tasks and actors can be placed."""

    def __init__(
        self, id: PlacementGroupID, bundle_cache: Optional[List[Dict[str, float]]] = None
    ) -> None:
        self.id = id
        self.bundle_cache = bundle_cache

    @staticmethod
    def empty() -> "PlacementGroup":
        return PlacementGroup(_NIL)

    @property
    def is_empty(self) -> bool:
        return bool(self.id == _NIL)

    def ready(self) -> Any:
        """A reference that is ready when all bundles are reserved; its value is this group."""
        return _Check(self).remote(self)

    def wait(self, timeout_seconds: Union[float, int] = 30) -> bool:
        """Waits until all bundles are reserved; False when they are not in time."""
        _libray.ensure()
        try:
            return bool(_libray.group_wait(self._bytes(), float(timeout_seconds)))
        except ValueError:
            raise Exception(f"Placement group {self.id} does not exist.") from None

    @property
    def bundle_specs(self) -> List[Dict[str, float]]:
        """What each bundle holds."""
        if self.bundle_cache is None and not self.is_empty:
            row = _row_of(self)
            if row is None:
                raise ValueError(f"Placement group {self.id} does not exist.")
            self.bundle_cache = _bundles(row)
        return self.bundle_cache or []

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def _bytes(self) -> bytes:
        return bytes(self.id.binary()).ljust(_ID, b"\0")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> Any:
        return (PlacementGroup, (self.id, self.bundle_cache))

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()})"


class _Check(_libray.RemoteBase):  # type: ignore[misc]
    """The task behind `PlacementGroup.ready`: it needs nothing, and runs in the group once that is there."""

    def __new__(cls, group: PlacementGroup) -> "_Check":
        return super().__new__(cls)

    def __init__(self, group: PlacementGroup) -> None:
        self._options = {"num_cpus": 0, "scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
        resources: Dict[str, Any] = {"placement": entry(self._options, {}, False)}
        environment = _runtime_env.for_call(None, 0.0)
        if environment:
            resources["runtime_env"] = environment
        note = bytes([IN_GROUP]) + note_of(self._options)
        self._set(_libray.CallSpec("", "", _packed(resources), num_returns=1, max_retries=-2, note=note), None)

    def _define(self) -> Any:
        global _check
        if _check is None:
            _check = Definition.of(_bundles_are_reserved, False)
        return _check.function()


_check: Optional[Definition] = None


def _bundles_are_reserved(group: PlacementGroup) -> PlacementGroup:
    return group


def placement_group(
    bundles: List[Dict[str, float]],
    strategy: Optional[str] = None,
    name: str = "",
    lifetime: Optional[str] = None,
    _soft_target_node_id: Optional[str] = None,
    bundle_label_selector: Optional[List[Dict[str, str]]] = None,
) -> PlacementGroup:
    """Asks for bundles of resources, which are reserved all at once as soon as they are free.

    strategy: how they are to lie on the nodes, "PACK" (also when it is not given), "SPREAD", "STRICT_PACK"
    or "STRICT_SPREAD" (which on a single node waits for ever when there is more than one bundle).
    lifetime: None = the group ends with its job; "detached" = when it is removed.
    """
    _libray.ensure()
    strategy = "PACK" if strategy is None else strategy
    _check_request(bundles, strategy, lifetime)
    if not isinstance(name, str):
        raise TypeError(f"the name of a placement group must be a str, not {type(name)}")
    held = [{k: float(v) for k, v in bundle.items() if v} for bundle in bundles]
    wanted = [dict(bundle) for bundle in held]
    for i, selector in enumerate(_bundle_selectors(bundle_label_selector, len(bundles))):
        for key in _unmatched(selector):
            wanted[i][f"{_WANTED}{key}={selector[key]}"[:64]] = 1.0
    try:
        made = _libray.group_create(
            _packed(wanted), _STRATEGIES.index(strategy), lifetime == "detached", name
        )
    except exceptions.ActorAlreadyExistsError:
        raise exceptions.RaySystemError(
            f"Failed to create placement group because name '{name}' already exists."
        ) from None
    return PlacementGroup(
        PlacementGroupID(made[: PlacementGroupID.SIZE]), [dict(b) for b in bundles]
    )


def _check_request(bundles: Any, strategy: str = "PACK", lifetime: Optional[str] = None) -> None:
    _check_bundles(bundles)
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"Invalid placement group strategy {strategy}. Supported strategies are: {_STRATEGIES}."
        )
    if lifetime not in (None, "detached"):
        raise ValueError(
            "Placement group `lifetime` argument must be either `None` or 'detached'. "
            f"Got {lifetime}."
        )
    if any("object_store_memory" in bundle for bundle in bundles):
        warnings.warn(
            "Setting 'object_store_memory' for bundles is deprecated since it doesn't actually reserve the memory "
            "required by the object store. Use 'memory' instead.",
            DeprecationWarning,
            stacklevel=3,
        )


def _check_bundles(bundles: Any) -> None:
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    if not bundles:
        raise ValueError("Bundles must be a non-empty list of resource dictionaries. Got empty list instead.")
    for bundle in bundles:
        if not isinstance(bundle, dict) or not all(
            isinstance(k, str) and isinstance(v, (int, float)) for k, v in bundle.items()
        ):
            raise ValueError(
                "Bundles must be a non-empty list of resource dictionaries, of resource name to number. "
                f"Got {bundle!r} instead."
            )
        if not bundle or all(v == 0 for v in bundle.values()):
            raise ValueError(
                "Bundles cannot be an empty dictionary or resources with only 0 values. "
                f"Bundles: {bundles}"
            )
        if any(v < 0 for v in bundle.values()):
            raise ValueError(f"The amounts of a bundle cannot be negative. Bundles: {bundles}")
        if "bundle" in bundle:
            raise ValueError(f"'bundle' is a reserved name and no resource. Bundles: {bundles}")


def _bundle_selectors(given: Any, count: int) -> List[Dict[str, str]]:
    if not given:
        return []
    if not isinstance(given, list) or len(given) != count:
        raise ValueError(
            f"Invalid bundle label selector {given}. The length of `bundle_label_selector` should equal "
            f"the length of `bundles`, which is {count}."
        )
    for selector in given:
        check_selector("bundle_label_selector", selector)
    return list(given)


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Removes a group: what runs in it is killed, what waits to run in it fails with
    TaskPlacementGroupRemoved or ActorPlacementGroupRemoved. Nothing happens when it is gone already."""
    assert placement_group is not None
    _libray.ensure()
    _libray.group_remove(placement_group._bytes())


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The living group of that name in this job's namespace."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    for row in _query():
        if row["name"] == placement_group_name and row["mine"] and row["state"] != "REMOVED":
            return PlacementGroup(_id_of(row), _bundles(row))
    raise ValueError(f"Failed to look up placement group with name: {placement_group_name}")


def placement_group_table(placement_group: Optional[PlacementGroup] = None) -> Dict[str, Any]:
    """What is known of one group (empty when there is none), or of all by their ids."""
    node = str(_libray.context()["node"]) if _libray.is_initialized() else ""
    rows = {_id_of(row).hex(): row for row in _query()}
    table = {key: _table_row(key, row, node) for key, row in rows.items()}
    if placement_group is None:
        return table
    return table.get(placement_group.id.hex(), {})


def _table_row(key: str, row: Dict[str, Any], node: str) -> Dict[str, Any]:
    bundles = _bundles(row)
    created = row["state"] == "CREATED"
    return {
        "placement_group_id": key,
        "name": row["name"],
        "bundles": dict(enumerate(bundles)),
        "bundles_to_node_id": {i: node if created else "" for i in range(len(bundles))},
        "strategy": row["strategy"],
        "state": row["state"],
        "stats": {
            "end_to_end_creation_latency_ms": 0.0,
            "scheduling_latency_ms": 0.0,
            "scheduling_attempt": 1,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": "FINISHED" if created else "REMOVED" if row["state"] == "REMOVED" else "QUEUED",
        },
    }


def _id_of(row: Dict[str, Any]) -> PlacementGroupID:
    return PlacementGroupID(bytes.fromhex(row["id"])[: PlacementGroupID.SIZE])


def _row_of(group: PlacementGroup) -> Optional[Dict[str, Any]]:
    return next((row for row in _query() if _id_of(row) == group.id), None)


def _bundles(row: Dict[str, Any]) -> List[Dict[str, float]]:
    return [
        {k: float(v) for k, v in bundle.items() if not k.startswith(_WANTED)}
        for bundle in row["bundles"]
    ]


# The group that this process's running task or actor is in. A worker runs one task at a time.
_current: Optional[PlacementGroup] = None
_captures = False


def get_current_placement_group() -> Optional[PlacementGroup]:
    """The group that the running task or actor is in; None elsewhere."""
    return _current


def current_captures() -> bool:
    """Whether what the running task submits is placed in its group by itself."""
    return _captures


def enter_group(group: Optional[bytes], captures: bool) -> None:
    """In a worker: the task that begins (or the actor that is made) is in this group; None: it is over."""
    global _current, _captures
    _current = None if group is None else PlacementGroup(PlacementGroupID(group))
    if captures != _captures:
        _libray.capture(captures)
    _captures = captures


def captured(function: Any) -> Any:
    """What stands for a remote function that is called in a task which captures: the same in its group,
    unless its own options say where."""
    options = function._options
    if _current is None or _says_where(options):
        return function
    known = function.__dict__.get("_captured")
    if known is None or known[0] != _current:
        made = function.options(scheduling_strategy=current_strategy(options))
        known = function.__dict__["_captured"] = (_current, made)
    return known[1]


def captured_options(options: Dict[str, Any]) -> Dict[str, Any]:
    """The same for the options of an actor class."""
    if _current is None or _says_where(options):
        return options
    return {**options, "scheduling_strategy": current_strategy(options)}


def _says_where(options: Dict[str, Any]) -> bool:
    return (
        options.get("scheduling_strategy") is not None
        or options.get("placement_group", "default") != "default"
    )


def current_strategy(options: Dict[str, Any]) -> PlacementGroupSchedulingStrategy:
    assert _current is not None
    index = options.get("placement_group_bundle_index")
    return PlacementGroupSchedulingStrategy(_current, -1 if index is None else index, True)


# ---- strategies ---------------------------------------------------------------------------------------


class PlacementGroupSchedulingStrategy:
    """Runs in a bundle of the group: of that index, or in any that has room (-1). With capture_child_tasks
    what it submits runs in the group too."""

    def __init__(
        self,
        placement_group: Optional[PlacementGroup],
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: Optional[bool] = None,
    ) -> None:
        if placement_group is None:
            placement_group = PlacementGroup.empty()
        if not isinstance(placement_group, PlacementGroup):
            raise ValueError(
                "placement_group must be an instance of PlacementGroup, got "
                f"{type(placement_group)}"
            )
        if isinstance(placement_group_bundle_index, bool) or not isinstance(
            placement_group_bundle_index, int
        ):
            raise TypeError(
                "placement_group_bundle_index must be an int, got "
                f"{type(placement_group_bundle_index)}"
            )
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Runs on that node. soft: another will do when it is not there."""

    def __init__(
        self,
        node_id: Any,
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ) -> None:
        self.node_id = node_id if isinstance(node_id, str) else node_id.hex()
        try:
            bad = _ids.NodeID.from_hex(self.node_id).is_nil()
        except (TypeError, ValueError):
            bad = True
        if bad:
            raise ValueError(
                f"Invalid node_id '{self.node_id}'. Node ID must be a valid hex string: take one of "
                "ray.nodes() or of get_runtime_context().get_node_id()"
            )
        if _spill_on_unavailable and not soft:
            raise ValueError("_spill_on_unavailable cannot be set when soft is False. Please set soft to True.")
        if _fail_on_unavailable and soft:
            raise ValueError("_fail_on_unavailable cannot be set when soft is True. Please set soft to False.")
        self.soft = bool(soft)
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable


def _check_values(*values: Any) -> None:
    if not values or not all(isinstance(v, str) for v in values):
        raise ValueError(f"labels are compared with one or more str, got {values}")


class In:
    """The node's label has one of the values."""

    def __init__(self, *values: str) -> None:
        _check_values(*values)
        self.values = list(values)

    def matches(self, value: Optional[str]) -> bool:
        return value in self.values


class NotIn(In):
    """The node's label has none of the values, or it has no such label."""

    def matches(self, value: Optional[str]) -> bool:
        return value not in self.values


class Exists:
    """The node has the label."""

    def matches(self, value: Optional[str]) -> bool:
        return value is not None


class DoesNotExist:
    """The node does not have the label."""

    def matches(self, value: Optional[str]) -> bool:
        return value is None


class NodeLabelSchedulingStrategy:
    """Runs on a node whose labels match `hard`, if possible also `soft`: maps of label to In, NotIn, Exists or
    DoesNotExist."""

    def __init__(
        self, hard: Optional[Dict[str, Any]], *, soft: Optional[Dict[str, Any]] = None
    ) -> None:
        for name, given in (("hard", hard), ("soft", soft)):
            if given is not None and not isinstance(given, dict):
                raise ValueError(
                    f"The {name} parameter must be a map (e.g. {{'key1': In('value1')}}) but got type "
                    f"{type(given)}."
                )
            for key, value in (given or {}).items():
                if not isinstance(key, str):
                    raise ValueError(
                        f"The map key of the {name} parameter must be of type str but got {key!r} of "
                        f"type {type(key)}."
                    )
                if not isinstance(value, (In, Exists, DoesNotExist)):
                    raise ValueError(
                        f"The map value for key {key} of the {name} parameter must be an instance of `In`, "
                        f"`NotIn`, `Exists` or `DoesNotExist` but got {value!r} of type {type(value)}."
                    )
        if not hard and not soft:
            raise ValueError(
                "The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be empty."
            )
        self.hard = hard or {}
        self.soft = soft or {}


# ---- labels -------------------------------------------------------------------------------------------

_labels: Optional[Dict[str, str]] = None
_labels_of = -1  # the runtime (its generation) that _labels was read from


def keep_labels(labels: Dict[str, str]) -> None:
    """By the driver that started the node."""
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"labels of a node are str, got {key!r}: {value!r}")
    namespace, key_name = _LABELS
    _libray.kv_put(namespace, key_name, json.dumps(labels).encode(), None)


def node_labels() -> Dict[str, str]:
    """Of this node: what init() was given, and its id as ray.io/node-id."""
    global _labels, _labels_of
    _libray.ensure()
    if _labels is None or _labels_of != _libray.generation():
        found = _libray.kv_get(*_LABELS)
        _labels = json.loads(bytes(found[0])) if found else {}
        _labels["ray.io/node-id"] = str(_libray.context()["node"])
        _labels_of = _libray.generation()
    return dict(_labels)


def check_selector(key: str, value: Any) -> None:
    """Option label_selector: {label: "value", "!value", "in(a, b)" or "!in(a, b)"}."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise TypeError(
            f"The type of keyword '{key}' must be {dict}, but received type {type(value)}"
        )
    for label, wanted in value.items():
        if not isinstance(label, str) or not label:
            raise ValueError(f"{key}: a label is a str that is not empty, got {label!r}")
        if re.fullmatch(_LABEL, label) is None:
            raise ValueError(
                f"Invalid label selector provided in {key}: the name {label!r} may have letters, digits and "
                "'_.-' (not at its ends), 63 of them, after a prefix that ends with '/'"
            )
        if not isinstance(wanted, str):
            raise ValueError(f"{key}: the value of label '{label}' must be a str, got {wanted!r}")
        _operator(wanted)


def _operator(text: str) -> Union[In, NotIn]:
    body = text.strip()
    negated = body.startswith("!")
    body = body[1:].strip() if negated else body
    values = [body]
    if body.startswith("in("):
        if not body.endswith(")"):
            raise ValueError(f"label selector {text!r}: the bracket is not closed")
        values = [v.strip() for v in body[3:-1].split(",")]
    bad = [v for v in values if not v or any(c in v for c in "!()")]
    if bad:
        raise ValueError(
            f'label selector {text!r}: use "value", "!value", "in(a, b)" or "!in(a, b)"'
        )
    return NotIn(*values) if negated else In(*values)


def _unmatched(selector: Optional[Dict[str, Any]]) -> List[str]:
    """The labels that this node does not have as wanted."""
    if not selector:
        return []
    labels = node_labels()
    operators = {k: _operator(v) if isinstance(v, str) else v for k, v in selector.items()}
    return [k for k, operator in operators.items() if not operator.matches(labels.get(k))]


# ---- options ------------------------------------------------------------------------------------------


def check_strategy(key: str, value: Any) -> None:
    if isinstance(value, str) and value not in ("DEFAULT", "SPREAD"):
        raise ValueError(
            f"Invalid scheduling_strategy value {value}. Valid values are [\"DEFAULT\" | \"SPREAD\" | "
            "PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | "
            "NodeLabelSchedulingStrategy]"
        )
    if value is None or isinstance(value, str):
        return
    if not isinstance(
        value,
        (
            PlacementGroupSchedulingStrategy,
            NodeAffinitySchedulingStrategy,
            NodeLabelSchedulingStrategy,
        ),
    ):
        raise TypeError(
            f"The type of keyword '{key}' must be (None, str, PlacementGroupSchedulingStrategy, "
            "NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy), but received type "
            f"{type(value)}"
        )


def check_group(key: str, value: Any) -> None:
    if value is not None and value != "default" and not isinstance(value, PlacementGroup):
        raise TypeError(f"{key} must be a PlacementGroup, None or 'default', got {type(value)}")


def check_fallback(key: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise TypeError(f"The type of keyword '{key}' must be a list of dicts, got {value!r}")
    for options in value:
        unknown = set(options) - {"label_selector"}
        if unknown:
            raise ValueError(f"{key}: unsupported options {sorted(unknown)}: use 'label_selector'")
        check_selector(key, options.get("label_selector"))


def check_together(options: Dict[str, Any]) -> None:
    """Options that exclude each other."""
    group = options.get("placement_group", "default")
    if group != "default" and options.get("scheduling_strategy") is not None:
        raise ValueError(
            "Placement groups should be specified via the scheduling_strategy option. "
            "The placement_group option is deprecated."
        )
    index = options.get("placement_group_bundle_index", -1)
    named = isinstance(group, PlacementGroup) and not group.is_empty
    if index not in (None, -1) and not named and _current is None:
        raise ValueError("If placement group is not set, the value of bundle index must be -1.")


def strategy_of(options: Dict[str, Any]) -> Optional[PlacementGroupSchedulingStrategy]:
    """The group that the options name; None when they name none."""
    strategy = options.get("scheduling_strategy")
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        return None if strategy.placement_group.is_empty else strategy
    group = options.get("placement_group", "default")
    if group == "default" and options.get("placement_group_bundle_index", -1) not in (None, -1):
        group = _current
    if not isinstance(group, PlacementGroup) or group.is_empty:
        return None
    index = options.get("placement_group_bundle_index")
    return PlacementGroupSchedulingStrategy(
        group,
        -1 if index is None else index,
        options.get("placement_group_capture_child_tasks"),
    )


_KEYS = ("scheduling_strategy", "placement_group", "placement_group_bundle_index", "label_selector")


def entry(
    options: Dict[str, Any], needs: Dict[str, float], actor: bool, name: str = ""
) -> Optional[Dict[str, Any]]:
    """The entry "placement" of the resources; None: nothing is said about it."""
    if not any(key in options for key in _KEYS):
        return None
    out: Dict[str, Any] = {}
    strategy = options.get("scheduling_strategy")
    grouped = strategy_of(options)
    if grouped is not None:
        free = options.get("num_cpus") == 0  # said so: not even its constructor needs one
        _check_fit(grouped, needs, actor, free, name)
        out["group"] = grouped.placement_group._bytes()
        out["bundle"] = grouped.placement_group_bundle_index
    elif isinstance(strategy, NodeAffinitySchedulingStrategy):
        node = bytes.fromhex(strategy.node_id)
        out["node"] = node[:_ID].ljust(_ID, b"\0")
        out["soft"] = strategy.soft
    missing = _missing_labels(options, strategy)
    if missing:
        out["never"] = f"wants a node with the label {missing}, which no node has"
    elif isinstance(strategy, NodeLabelSchedulingStrategy) or options.get("label_selector"):
        out["here"] = True  # it was looked at whether this node has them, and at no other
    if out or "placement_group" in options and options["placement_group"] is None:
        return out
    return None


def _missing_labels(options: Dict[str, Any], strategy: Any) -> str:
    hard: Any = strategy.hard if isinstance(strategy, NodeLabelSchedulingStrategy) else {}
    missing = _unmatched(hard)
    if missing:
        return missing[0]
    selector = options.get("label_selector")
    missing = _unmatched(selector)
    if not missing:
        return ""
    for other in options.get("fallback_strategy") or []:
        if not _unmatched(other.get("label_selector")):
            return ""
    return f"{missing[0]}={selector[missing[0]]}" if selector else missing[0]


def _check_fit(
    strategy: PlacementGroupSchedulingStrategy,
    needs: Dict[str, float],
    actor: bool,
    free: bool,
    name: str,
) -> None:
    group, index = strategy.placement_group, strategy.placement_group_bundle_index
    try:
        bundles: Sequence[Dict[str, float]] = group.bundle_specs
    except ValueError:
        return  # no such group any more: the task will say so
    if index < -1 or index >= len(bundles):
        raise ValueError(
            f"placement group bundle index {index} is invalid. Valid placement group indexes: "
            f"0-{len(bundles)}"
        )
    what = name or ("the actor" if actor else "the task")
    if not _fits_any(needs, bundles):
        wanted = {k: int(v) if v == int(v) else v for k, v in needs.items()}
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the resource request {wanted} cannot fit "
            f"into any bundles for the placement group, {_floats(bundles)}."
        )
    if actor and not needs and not free and not _fits_any({"CPU": 1.0}, bundles):
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the actor requires 1.0 CPU for creation, "
            f"but it cannot fit into any bundles for the placement group, {list(bundles)}. Consider creating "
            "a placement group with CPU resources."
        )


def _floats(bundles: Sequence[Dict[str, float]]) -> List[Dict[str, float]]:
    return [{k: float(v) for k, v in bundle.items()} for bundle in bundles]


def _fits_any(needs: Dict[str, float], bundles: Sequence[Dict[str, float]]) -> bool:
    return any(all(b.get(k, 0) >= v for k, v in needs.items()) for b in bundles)


def note_of(options: Dict[str, Any]) -> bytes:
    """The group that a task is in, for its worker: a byte (1: children too) and the id; else empty."""
    grouped = strategy_of(options)
    if grouped is None:
        return b""
    captures = bool(grouped.placement_group_capture_child_tasks)
    return bytes([captures]) + bytes(grouped.placement_group.id.binary())


IN_GROUP = 4  # flag of a call's note (Note in src/worker.h): it tells of a group
NOTE_SIZE = 1 + PlacementGroupID.SIZE


def enter_note(note: Optional[bytes]) -> None:
    """Called by the extension around a task whose note tells of a group; None: it is over."""
    if note is None:
        enter_group(None, False)
    else:
        enter_group(note[2 : 1 + NOTE_SIZE], note[1] != 0)


__all__ = [
    "DoesNotExist",
    "Exists",
    "In",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "NotIn",
    "PlacementGroup",
    "PlacementGroupSchedulingStrategy",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]
