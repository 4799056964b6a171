"""Pure: the values of the domain: jobs, their events, ids, cursors and traits."""
