"""Pure: settings of a server and where each value came from."""
