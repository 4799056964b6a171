"""Effect: reloads the handlers of a running server."""
