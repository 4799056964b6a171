"""Effect: applies the plan: starts, loads and closes executors, and assigns attempts to them."""
