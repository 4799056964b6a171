"""Effect: the process that starts, watches and ends the executors of one device."""
