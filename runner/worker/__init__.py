"""Effect: the process that starts, supervises and kills the executors of one device.

It never runs handler code, so it survives anything that handler code does.
"""
