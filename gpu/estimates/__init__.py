"""Pure: memory and run times that are learned from finished attempts."""
