"""Pure: who uses which bytes of a device: the ledger, process attribution and enforcement of grants."""
