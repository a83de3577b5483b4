"""A shard's way to another server while it is in use: a copy of one moment, then what changed meanwhile, then the map.

Also the way of the lead to a backup.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import astuple

from oarlock.fleet_ext.parameter_server import messages
from oarlock.fleet_ext.parameter_server.errors import TablesError
from oarlock.fleet_ext.parameter_server.links import LinkLost, Links, packed
from oarlock.fleet_ext.parameter_server.membership import Membership
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.placement import Map, Place, handed_over, joined
from oarlock.fleet_ext.parameter_server.shard import ShardImage
from oarlock.fleet_ext.parameter_server.slots import Slot
from oarlock.fleet_ext.rendezvous import StoreError
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

_ANSWER_S = 10.0
_FEW = 8  #: changes that are sent while others wait
_HAND_OVER_S = 2.0

_log = logging.getLogger(__name__)


class Copying:
    """Gives shards to those who join, one after the other, in a thread of its own.

    Args:
        failed: told of an error that no other server has caused.
    """

    def __init__(
        self, membership: Membership, links: Links, replicas: int, job: str, token: str, tls: wire.Tls | None,
        failed: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._membership, self._links, self._replicas = membership, links, replicas
        self._job, self._token, self._tls, self._failed = job, token, tls, failed
        self._asked: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()
        self._waiting: set[int] = set()
        self._thread = threading.Thread(target=self._copy_all, name="tables copy", daemon=True)
        self._thread.start()

    def ask(self, slot: Slot) -> None:
        """Gives a shard to who joins, if that is not being done."""
        if slot.shard_number not in self._waiting:
            self._waiting.add(slot.shard_number)
            self._asked.put(slot)

    def close(self) -> None:
        self._asked.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(_ANSWER_S)

    def hand_over(self, slot: Slot) -> None:
        """Lets the backup lead, which has every change."""
        with slot.condition:
            before = slot.place
            if before is None or not slot.leads or before.backup is None or before.joining is not None:  # fmt: skip
                return
            if slot.latest is not None:
                try:
                    slot.latest.wait(_HAND_OVER_S)
                except (LinkLost, TimeoutError):
                    return  # it is taken out of the map first
            self._enter(slot, before, handed_over(before))

    def do_without_backup(self, slot: Slot) -> None:
        """Takes a backup that refuses changes out of the map; `slot.condition` is held."""
        before = slot.place
        if before is None or not slot.leads or before.backup is None:
            return
        try:
            self._enter(slot, before, before.led(before.primary, None, before.joining))
        except StoreError as error:
            _log.warning("shard %d: %s", slot.shard_number, error)

    def _enter(self, slot: Slot, before: Place, after: Place) -> bool:
        """Changes the map and the slot together, whose condition is held."""
        shard = slot.shard_number

        def change(map: Map) -> Map | None:
            return map.changed({shard: after}) if map.places[shard] == before else None

        if self._membership.propose(change) is None:
            return False
        slot.move(after)
        return True

    def _copy_all(self) -> None:
        while (slot := self._asked.get()) is not None:
            self._waiting.discard(slot.shard_number)
            try:
                self._copy(slot)
            except (OSError, EOFError, Refused, StoreError, TablesError) as error:
                self._give_up(slot, error)
            except Exception as error:  # the disk's, or a mistake of ours
                self._failed(error)
                return

    def _give_up(self, slot: Slot, why: Exception) -> None:
        with slot.condition:
            slot.backlog = None
            joining = slot.place.joining if slot.place is not None else None
        _log.warning("shard %d is not given to %s: %s", slot.shard_number, joining, why)
        if joining is not None:
            self._links.distrust(joining)
        self._membership.look()

    def _copy(self, slot: Slot) -> None:
        with slot.condition:
            place = slot.place
            if place is None or not slot.leads or place.joining is None or slot.shard is None:
                return
            address = self._links.address(place.joining)
            if address is None:
                return
            image = slot.shard.image()
            slot.backlog = deque()
        try:
            connection = messages.greeted(address, self._job, self._token, self._tls, _ANSWER_S)
            with connection:

                def ask(message: Message) -> None:
                    answer = messages.ask(connection, message, _ANSWER_S).names
                    for why in answer["results"]:
                        if why:
                            raise LinkLost(why)

                self._send_image(slot, place, image, ask)
                self._send_backlog(slot, place, ask)
        finally:
            image.close()

    @staticmethod
    def _send_image(
        slot: Slot, place: Place, image: ShardImage, ask: Callable[[Message], None]
    ) -> None:
        where = list(astuple(place))
        begin = {"op": "install", "step": "begin", "shard": slot.shard_number, "place": where,
                 "plain": image.plain}  # fmt: skip
        ask(Message(begin, image.staged))
        for table, keys, records in image.chunks():
            ask(Message({"op": "install", "step": "rows", "table": table}, [keys, records]))
        ask(Message({"op": "install", "step": "end"}))

    def _send_backlog(self, slot: Slot, place: Place, ask: Callable[[Message], None]) -> None:
        while True:
            with slot.condition:
                if (
                    slot.backlog is None
                    or slot.place is None
                    or slot.place.joining != place.joining
                ):
                    raise LinkLost("the map has changed")
                changes = list(slot.backlog)
                slot.backlog.clear()
                if len(changes) <= _FEW:
                    # The rest while nobody changes anything: then who joins has all.
                    if changes:
                        ask(packed("", changes))
                    after = joined(slot.place, self._replicas)
                    if not self._enter(slot, slot.place, after):
                        raise LinkLost("the map has changed")
                    slot.backlog = None
                    return
            ask(packed("", changes))
