"""Pure: the front of the house: HTTP and server-sent events, stateless, beside the coordinator."""
