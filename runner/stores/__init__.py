"""Pure: stores of jobs and events: the interface and its implementations."""
