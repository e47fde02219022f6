"""`ray.util.actor_group.ActorGroup`: the same call on several actors of one class."""

from typing import Any, Dict, Iterator, List, Optional

import ray


class _Method:
    def __init__(self, group: "ActorGroup", name: str) -> None:
        self._group, self._name = group, name

    def remote(self, *args: Any, **kwargs: Any) -> List[Any]:
        return [getattr(actor, self._name).remote(*args, **kwargs) for actor in self._group.actors]


class ActorGroup:
    """`group.method.remote(...)` calls all of them and gives a list of references."""

    def __init__(
        self,
        actor_cls: type,
        num_actors: int = 1,
        num_cpus_per_actor: float = 1,
        num_gpus_per_actor: float = 0,
        resources_per_actor: Optional[Dict[str, float]] = None,
        init_args: Any = (),
        init_kwargs: Optional[Dict[str, Any]] = None,
    ) -> None:
        if num_actors <= 0:
            raise ValueError(f"The provided `num_actors` must be greater than 0, got {num_actors}.")
        made = ray.remote(actor_cls).options(
            num_cpus=num_cpus_per_actor, num_gpus=num_gpus_per_actor, resources=resources_per_actor
        )
        self.actors = [made.remote(*init_args, **(init_kwargs or {})) for _ in range(num_actors)]

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Method(self, name)

    def __len__(self) -> int:
        return len(self.actors)

    def __getitem__(self, index: int) -> Any:
        return self.actors[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.actors)

    def shutdown(self, patience_s: float = 5) -> None:
        done = [actor.__ray_terminate__.remote() for actor in self.actors]
        ray.wait(done, num_returns=len(done), timeout=patience_s)
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []
