"""Effect: the process that reads the GPUs of one machine."""
