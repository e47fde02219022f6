"""`ray.util.state.exception`."""


class RayStateApiException(Exception):
    """A question about the state of the cluster could not be answered."""


class DataSourceUnavailable(RayStateApiException):
    pass


class ServerUnavailable(RayStateApiException):
    pass
