"""gRPC connections of one process' users: several users share one.

Under gevent each channel has a poller of its own that wakes for every answer. Eight users on a connection cost a fifth
less CPU a request than one connection each (docs/load-testing.md), and still spread over the gateway's worker threads.
"""

from __future__ import annotations

from collections import Counter

import grpc

USERS_PER_CONNECTION = 8


class GrpcConnections:
    """Channels to one address, each lent to at most so many users at a time and closed when it has none."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._users: Counter[grpc.Channel] = Counter()

    def take(self) -> grpc.Channel:
        for channel, users in self._users.items():
            if users < USERS_PER_CONNECTION:
                self._users[channel] += 1
                return channel
        # Without a pool of its own it would share the connection of every other channel to the address.
        channel = grpc.insecure_channel(self._target, options=[("grpc.use_local_subchannel_pool", 1)])
        self._users[channel] = 1
        return channel

    def give_back(self, channel: grpc.Channel) -> None:
        self._users[channel] -= 1
        if not self._users[channel]:
            del self._users[channel]
            channel.close()
