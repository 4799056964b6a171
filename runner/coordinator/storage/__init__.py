"""Effect: the opening of the store, the journal of committed changes, and other files of the data folder."""
