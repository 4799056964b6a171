"""Pure: the planner: which job starts where, what is loaded, evicted or reserved for it."""
