"""Effect: processes of executors: start, fork server, memory and clean-up."""
