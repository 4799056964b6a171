"""Effect: the life of a job from its acceptance to its end, its recovery and its deletion."""
