"""One module for each dataset: `records(source, data)` reads its archives, records sorted by id."""
