"""`ray.util.annotations`: marks of stability. They only note themselves on what they mark."""

from enum import Enum


class AnnotationType(Enum):
    PUBLIC_API = "PublicAPI"
    DEVELOPER_API = "DeveloperAPI"
    DEPRECATED = "Deprecated"
    UNKNOWN = "Unknown"


def _marker(kind):
    def mark(*args, **kwargs):
        def note(target):
            try:
                target._annotated = getattr(target, "__name__", "")
                target._annotated_type = kind
            except (AttributeError, TypeError):
                pass
            return target

        if len(args) == 1 and not kwargs and callable(args[0]):
            return note(args[0])
        return note

    return mark


PublicAPI = _marker(AnnotationType.PUBLIC_API)
DeveloperAPI = _marker(AnnotationType.DEVELOPER_API)
Deprecated = _marker(AnnotationType.DEPRECATED)
ClientAPI = _marker(AnnotationType.UNKNOWN)
RayDeprecationWarning = type("RayDeprecationWarning", (DeprecationWarning,), {"__module__": __name__})
