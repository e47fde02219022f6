"""`ray._private.client_mode_hook`: there is no client mode."""


def client_mode_hook(func):
    return func


def client_mode_should_convert() -> bool:
    return False


def disable_client_hook():
    import contextlib

    return contextlib.nullcontext()


enable_client_mode = disable_client_hook
