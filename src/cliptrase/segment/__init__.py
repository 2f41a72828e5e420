"""From patch features to a label map: correlation, clusters, regions, logits, vote."""
