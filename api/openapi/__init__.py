"""Pure: the published schema, the OpenAPI document and the page that shows it."""
