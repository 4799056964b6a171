"""Effect: the front's connection to the coordinator and what it knows from it."""
