"""Pure: one file for each noun of the HTTP interface.

The first line of a route's docstring is its summary in the OpenAPI document.
"""
