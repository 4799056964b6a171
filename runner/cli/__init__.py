"""Pure: the command line of runner; `__main__` is its entry."""
