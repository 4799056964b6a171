"""Effect: supervises executors: attempts, deadlines, kills and crash reports."""
