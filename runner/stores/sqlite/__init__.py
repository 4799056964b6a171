"""Effect: the store in SQLite: schema, statements, and the writer process."""
