"""Host side of the data: random-access sources, batch transforms, and the order in which examples are seen."""
