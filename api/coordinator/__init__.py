"""Effect: the front's connection to the coordinator, and the handlers received through it."""
