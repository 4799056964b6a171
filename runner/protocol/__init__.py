"""Pure: messages between processes, their frames, and the sockets that carry them.

`worker` and `front` define the messages, `framing` their bytes, `zmq_*` and `spool` the transports.
"""
