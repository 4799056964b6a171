"""Pure: the state that a plan reads: queued classes, resident executors, free capacity and tenant shares."""
