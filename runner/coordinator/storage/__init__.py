"""Effect: the journal, which commits changes to the store, and the lock and secret of the data folder."""
