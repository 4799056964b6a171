"""Effect: the journal of committed changes, and what else the data folder holds."""
