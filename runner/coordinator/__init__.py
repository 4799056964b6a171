"""Effect: the coordinator: decides which job runs where, and is the only writer of the store."""
