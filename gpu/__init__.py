"""Pure: devices and their memory, and which jobs run on them. Imports neither `runner` nor `api`."""
