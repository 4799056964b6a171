"""Pure: what the coordinator keeps of its exchange with a worker."""

from __future__ import annotations

from runner.coordinator.processes.worker_connection import WorkerConnection
from runner.protocol.worker import Ack, encode


def lose_link(connection: WorkerConnection) -> None:
    connection.disconnected_mono = 12.0


def test_only_the_first_hello_is_new_and_each_restores_the_link() -> None:
    connection = WorkerConnection("w", "n", 10.0)
    assert connection.record_hello(11.0)
    lose_link(connection)
    assert not connection.record_hello(13.0)
    assert (connection.is_connected, connection.disconnected_mono) == (True, None)
    assert connection.last_message_mono == 13.0


def test_a_frame_takes_what_is_pending_with_the_acknowledgement_at_its_end() -> None:
    connection = WorkerConnection("w", "n", 0.0)
    connection.pending_messages += [b"a", b"b"]
    connection.pending_ack = 7
    assert connection.take_messages() == [b"a", b"b", encode(Ack(7))]
    assert connection.take_messages() == []
