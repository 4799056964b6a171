"""Effect: validation of inputs against the handlers' schemas, in the front or in processes of its own."""
