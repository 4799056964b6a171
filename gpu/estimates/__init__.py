"""Pure: memory needs and run times learned from finished attempts."""
