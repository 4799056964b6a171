"""Effect: supervises executors: attempts, deadlines, kills and crash reports.

`Supervisor` owns one executor; the other modules are its parts or the pure policy that they use.
"""
