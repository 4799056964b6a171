"""Pure: whether a recorded history keeps the promises of the API; shares no code with what it judges."""
