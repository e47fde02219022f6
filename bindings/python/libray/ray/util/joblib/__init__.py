"""`ray.util.joblib.register_ray`: `joblib.parallel_backend("ray")` runs joblib's batches in a pool of actors."""


def register_ray() -> None:
    """Makes the backend "ray" known to joblib."""
    from joblib.parallel import register_parallel_backend

    from ray.util.joblib.ray_backend import RayBackend

    register_parallel_backend("ray", RayBackend)


__all__ = ["register_ray"]
