"""What can go wrong with a parameter server."""


class TablesError(RuntimeError):
    """Tables could not do what they were asked."""


class Unavailable(TablesError):
    """A shard did not answer in time; the message names the shard, the server and why. The client is of no more use:
    a push may or may not have been applied.

    Attributes:
        shard: which.
    """

    def __init__(self, words: str, shard: int) -> None:
        super().__init__(words)
        self.shard = shard


class WorkerLost(TablesError):
    """Other workers go on without this one, which was taken for lost, or whose rank another client has: make a new
    client to join again."""


class Moved(TablesError):
    """A server does not lead this shard now: for clients, who look at the map again."""
