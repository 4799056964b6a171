"""Effect: the process that reads the GPUs of one machine.

A process of its own, because a call into a hung driver never returns.
"""
