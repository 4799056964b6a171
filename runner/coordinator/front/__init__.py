"""Effect: answers the requests of fronts."""
