"""Effect: HTTP in the front: connections, bodies, authentication, parsing and problem documents."""
