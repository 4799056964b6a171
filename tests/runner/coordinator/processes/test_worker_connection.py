"""Pure: what the coordinator keeps of its exchange with a worker."""

from __future__ import annotations

from runner.coordinator.processes.worker_connection import WorkerConnection
from runner.protocol.worker import Ack, encode


def lose_link(connection: WorkerConnection) -> None:
    connection.is_link_lost = True


def test_only_the_first_hello_is_new_and_each_restores_the_link() -> None:
    connection = WorkerConnection("w", "n")
    assert connection.record_hello()
    lose_link(connection)
    assert not connection.record_hello()
    assert (connection.is_connected, connection.is_link_lost) == (True, False)


def test_a_frame_takes_what_is_pending_with_the_acknowledgement_at_its_end() -> None:
    connection = WorkerConnection("w", "n")
    connection.pending_messages += [b"a", b"b"]
    connection.pending_ack = 7
    assert connection.take_messages() == [b"a", b"b", encode(Ack(7))]
    assert connection.take_messages() == []
