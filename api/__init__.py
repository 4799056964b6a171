"""Pure: the HTTP front: stateless processes that serve HTTP and server-sent events for the coordinator."""
