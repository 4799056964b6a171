"""Pure: what a device is and what fits on it. This folder imports nothing of the other two."""
