"""That nothing is made of an instance, and why."""


class Refused(Exception):
    """Nothing can be made of an instance; `reason` holds no value of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
