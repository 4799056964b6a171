"""Effect: carries out the plan: starts, loads and closes executors, and hands them attempts."""
