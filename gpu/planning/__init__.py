"""Pure: the planner: which jobs start on which devices, and what is loaded, evicted or reserved for them."""
