"""Pure: what a handler declares: the decorator, its options and its exceptions."""
