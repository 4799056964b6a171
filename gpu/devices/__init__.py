"""Pure: GPUs as the driver reports them: discovery, readings, health and visibility to a process."""
