"""The backend: joblib's own for multiprocessing, with the pool of `ray.util.multiprocessing`."""

from typing import Any, Dict, Optional

import ray
from joblib._parallel_backends import MultiprocessingBackend
from ray.util.multiprocessing.pool import Pool


class RayBackend(MultiprocessingBackend):
    """`n_jobs=-1` is one actor per CPU of the cluster. `ray_remote_args` are options of the actors."""

    def __init__(
        self,
        nesting_level: Any = None,
        inner_max_num_threads: Any = None,
        ray_remote_args: Optional[Dict[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **kwargs
        )
        self.ray_remote_args = ray_remote_args

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **ignored: Any
    ) -> int:
        n_jobs = self.effective_n_jobs(n_jobs)
        self._pool = Pool(processes=n_jobs, ray_remote_args=self.ray_remote_args)
        self.parallel = parallel
        return n_jobs

    def effective_n_jobs(self, n_jobs: Optional[int]) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if not ray.is_initialized():
            ray.init()
        cpus = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        if n_jobs is None:
            return 1
        return max(1, cpus + 1 + n_jobs) if n_jobs < 0 else min(n_jobs, cpus)

    def terminate(self) -> None:
        pool, self._pool = getattr(self, "_pool", None), None
        if pool is not None:
            pool.close()
            pool.terminate()
