"""Small archives of every source in the true formats, and a server that serves them with faults."""
