"""Effect: answers the requests of fronts. Every request gets one reply: a result, or a problem document."""
