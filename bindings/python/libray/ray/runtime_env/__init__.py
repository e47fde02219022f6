"""`ray.runtime_env`."""

from ray.runtime_env.runtime_env import RuntimeEnv, RuntimeEnvConfig

__all__ = ["RuntimeEnv", "RuntimeEnvConfig", "mpi_init"]


def mpi_init() -> None:
    raise NotImplementedError("libray has no MPI runtime environments: start mpirun inside a task")
