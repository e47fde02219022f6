"""`ray.tests.client_test_utils`."""

from typing import Any


def create_remote_signal_actor(ray: Any) -> Any:
    """The class of an actor that tasks wait for."""
    from ray._common.test_utils import SignalActor

    return SignalActor
