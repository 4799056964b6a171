"""Effect: the devices of the server: registry, memory, health and enforcement of grants."""
