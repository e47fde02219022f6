"""`ray.util.client.common`: classes of Ray's thin client, which programs name in isinstance checks. libray has no such
client, so nothing is ever an instance of them."""


class ClientObjectRef:
    """A reference held through a thin client."""


class ClientActorRef:
    """An actor's id held through a thin client."""


class ClientActorHandle:
    """A handle held through a thin client."""


class ClientActorClass:
    """An actor class made through a thin client."""


class ClientRemoteFunc:
    """A remote function made through a thin client."""


class ClientRemoteMethod:
    """A method of a handle that is held through a thin client."""


class ClientStub:
    """Base of Ray's own: what is not there raises AttributeError."""
