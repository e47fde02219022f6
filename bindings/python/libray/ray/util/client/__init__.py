"""`ray.util.client`: there is no client mode."""


class _Api:
    def is_connected(self) -> bool:
        return False

    def disconnect(self) -> None:
        pass


ray = _Api()
