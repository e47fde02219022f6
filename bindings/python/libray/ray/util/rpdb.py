"""`ray.util.rpdb`: workers have no terminal to debug on."""


def set_trace(*args, **kwargs) -> None:
    raise NotImplementedError(
        "libray has no remote debugger: run the function in the driver with local_mode=True, or look at the "
        "running worker with `libray stack`"
    )


post_mortem = set_trace
