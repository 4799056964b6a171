"""Pure: the command line of runner; `__main__` is its entry point.

Each command imports what it needs when it runs, so that `runner --help` stays fast.
"""
