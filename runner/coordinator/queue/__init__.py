"""Effect: queued jobs: in memory, spilled to the store, and delayed until a due time."""
