"""Pure: a long run of everything at once under kills, and a look at every job at its end."""
