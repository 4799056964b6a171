"""Effect: queued jobs: in memory, spilled to the store, and waiting for a moment."""
