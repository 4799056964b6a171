"""Pure: the HTTP front: stateless processes for HTTP and server-sent events, beside the coordinator."""
