"""Pure: the public names of runner."""
