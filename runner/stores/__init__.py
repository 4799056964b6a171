"""Pure: stores of jobs and events: the interface, and what implements it."""
