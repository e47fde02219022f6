"""`ray._private.auto_init_hook`: functions of libray start the runtime by themselves."""

from libray.driver.start import ensure as auto_init_ray

enable_auto_connect = True


def wrap_auto_init(fn):
    import functools

    @functools.wraps(fn)
    def call(*args, **kwargs):
        auto_init_ray()
        return fn(*args, **kwargs)

    return call
