"""`ray.util.debug`: messages that are said once."""

import time

_logged: dict = {}
_disabled = False
_periodic = False


def log_once(key: str) -> bool:
    """True the first time it is asked for the key; every 60 seconds once `enable_periodic_logging` was called."""
    if _disabled:
        return False
    last = _logged.get(key)
    if last is None or (_periodic and time.time() - last > 60.0):
        _logged[key] = time.time()
        return True
    return False


def disable_log_once_globally() -> None:
    global _disabled
    _disabled = True


def enable_periodic_logging() -> None:
    global _periodic
    _periodic = True


def reset_log_once(key=None) -> None:
    if key is None:
        _logged.clear()
    else:
        _logged.pop(key, None)
