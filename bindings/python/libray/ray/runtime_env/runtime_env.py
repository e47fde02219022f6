"""`RuntimeEnv`: a dict with checks. Which fields work is decided where it is used, by libray."""

import json
from typing import Any, Dict, Optional

_FIELDS = (
    "py_modules py_executable working_dir pip uv conda container image_uri excludes env_vars config nsight "
    "worker_process_setup_hook mpi rocprof_sys java_jars _ray_release _ray_commit "
    "_inject_current_ray"
).split()


class RuntimeEnvConfig(dict):
    """`config` of a runtime environment."""

    def __init__(
        self,
        setup_timeout_seconds: int = 600,
        eager_install: bool = True,
        log_files: Optional[list] = None,
    ) -> None:
        if not isinstance(setup_timeout_seconds, int):
            raise TypeError(
                f"setup_timeout_seconds must be of type int, got: {type(setup_timeout_seconds)}"
            )
        if setup_timeout_seconds <= 0 and setup_timeout_seconds != -1:
            raise ValueError(
                "setup_timeout_seconds must be greater than zero or equals to -1, got: "
                f"{setup_timeout_seconds}"
            )
        if not isinstance(eager_install, bool):
            raise TypeError(f"eager_install must be a boolean. got {type(eager_install)}")
        super().__init__(
            setup_timeout_seconds=setup_timeout_seconds,
            eager_install=eager_install,
            log_files=log_files or [],
        )


class RuntimeEnv(dict):
    """The surroundings of a task or an actor: `RuntimeEnv(env_vars={"A": "1"})`."""

    known_fields = set(_FIELDS)

    def __init__(self, *, _validate: bool = True, **fields: Any) -> None:
        super().__init__()
        config = fields.get("config")
        if isinstance(config, dict) and not isinstance(config, RuntimeEnvConfig):
            fields["config"] = RuntimeEnvConfig(**config)
        for key, value in fields.items():
            if value is not None:
                self[key] = value
        if _validate:
            _check(self)

    def to_dict(self) -> Dict[str, Any]:
        return {key: dict(v) if isinstance(v, RuntimeEnvConfig) else v for key, v in self.items()}

    def serialize(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def deserialize(cls, text: str) -> "RuntimeEnv":
        return cls(_validate=False, **json.loads(text))

    def env_vars(self) -> Dict[str, str]:
        return dict(self.get("env_vars") or {})

    def __reduce__(self) -> Any:
        return (_rebuild, (self.to_dict(),))


def _rebuild(fields: Dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(_validate=False, **fields)


def _check(env: RuntimeEnv) -> None:
    if "pip" in env and "conda" in env:
        raise ValueError(
            "The 'pip' field and 'conda' field of runtime_env cannot be specified at the same time."
        )
    variables = env.get("env_vars")
    if variables is not None:
        if not isinstance(variables, dict):
            raise TypeError(
                "runtime_env['env_vars'] must be of type Dict[str, str], got " f"{type(variables)}"
            )
        for key, value in variables.items():
            for item, what in ((key, "key"), (value, "value")):
                if not isinstance(item, str):
                    raise TypeError(
                        "runtime_env['env_vars'] must be of type Dict[str, str], but the "
                        f"{what} {item!r} is of type {type(item)}"
                    )
