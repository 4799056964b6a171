"""Effect: documents about the server: metrics, statistics, readiness and resources."""
