"""`ray.util.collective`: no collectives yet; reduce with tasks, as `samples/ray/tree_reduce.py` does."""

_NAMES = (
    "init_collective_group create_collective_group destroy_collective_group is_group_initialized get_rank "
    "get_collective_group_size allreduce allreduce_multigpu barrier reduce reduce_multigpu broadcast "
    "broadcast_multigpu allgather allgather_multigpu reducescatter reducescatter_multigpu send send_multigpu "
    "recv recv_multigpu nccl_available gloo_available"
).split()


def _make(name):
    def absent(*args, **kwargs):
        if name in ("nccl_available", "gloo_available", "is_group_initialized"):
            return False
        raise NotImplementedError(
            f"libray has no collective operations ({name}): reduce and broadcast through tasks and the object "
            "store, or use torch.distributed among actors"
        )

    absent.__name__ = name
    return absent


for _name in _NAMES:
    globals()[_name] = _make(_name)
__all__ = list(_NAMES)
