"""Effect: applies the messages of workers to jobs, executors and the ledger."""
