"""Settings of a job, for `init(job_config=...)`: made by programs, read by `init` on its thread."""

from typing import Any, Dict, List, Optional, Union


class JobConfig:
    """Settings of a job, given to `ray.init(job_config=...)`."""

    def __init__(
        self,
        jvm_options: Optional[List[str]] = None,
        code_search_path: Optional[List[str]] = None,
        runtime_env: Optional[Dict[str, Any]] = None,
        _client_job: bool = False,
        metadata: Optional[Dict[str, str]] = None,
        ray_namespace: Optional[str] = None,
        default_actor_lifetime: str = "non_detached",
        _py_driver_sys_path: Optional[List[str]] = None,
    ) -> None:
        if isinstance(code_search_path, str):
            raise TypeError(
                "The type of code search path is incorrect: expected a list of str, got str."
            )
        self.jvm_options = jvm_options or []
        self.code_search_path = code_search_path or []
        self.metadata = metadata or {}
        self.ray_namespace = ray_namespace
        self._client_job = _client_job
        self._py_driver_sys_path = _py_driver_sys_path or []
        self.set_runtime_env(runtime_env)
        self.set_default_actor_lifetime(default_actor_lifetime)

    def set_metadata(self, key: str, value: str) -> None:
        self.metadata[key] = value

    def set_runtime_env(self, runtime_env: Optional[Dict[str, Any]], validate: bool = False) -> None:
        self.runtime_env = runtime_env if runtime_env is not None else {}

    def set_ray_namespace(self, ray_namespace: str) -> None:
        self.ray_namespace = ray_namespace

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        if default_actor_lifetime not in ("detached", "non_detached"):
            raise ValueError(
                "Default actor lifetime must be one of `detached`, `non_detached`, got "
                f"{default_actor_lifetime!r}"
            )
        self._default_actor_lifetime = default_actor_lifetime

    @property
    def default_actor_lifetime(self) -> str:
        return self._default_actor_lifetime

    @classmethod
    def from_json(cls, job_config_json: Dict[str, Any]) -> "JobConfig":
        known = ("jvm_options", "code_search_path", "runtime_env", "metadata", "ray_namespace")
        return cls(
            **{key: job_config_json.get(key) for key in known},
            _client_job=job_config_json.get("client_job", False),
            _py_driver_sys_path=job_config_json.get("py_driver_sys_path"),
        )


def as_job_config(given: Union[JobConfig, Dict[str, Any], None]) -> Optional[JobConfig]:
    if given is None or isinstance(given, JobConfig):
        return given
    if isinstance(given, dict):
        return JobConfig.from_json(given)
    raise TypeError(f"job_config must be a JobConfig or a dict, not {type(given)}")
