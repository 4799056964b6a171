"""Pure: messages between processes, their frames, and the sockets that carry them."""
