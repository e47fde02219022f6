"""`ray.util.iter`: parallel iterators, which Ray has given up, are not here."""


def _absent(*args, **kwargs):
    raise NotImplementedError(
        "libray has no parallel iterators: use a generator task (@ray.remote def f(): yield ...) or "
        "ray.util.ActorPool"
    )


from_items = from_range = from_iterators = from_actors = _absent
