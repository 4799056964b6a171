"""Pure: text forms of values: durations and sizes, timestamps, strict JSON, printable text."""
