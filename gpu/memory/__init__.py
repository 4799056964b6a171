"""Pure: the memory of a device by user: the ledger, attribution of processes, enforcement of grants."""
