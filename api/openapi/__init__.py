"""Pure: the published schema, its document and the page that shows it."""
