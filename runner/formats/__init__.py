"""Pure: text forms of values: names, durations and sizes, timestamps, strict JSON, printable text."""
