"""Effect: applies the messages of workers."""
