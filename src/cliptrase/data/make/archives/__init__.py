"""One module for each dataset: from the archives of its source to its records, straight through.

Each has `records(source, data)`: sorted by id, images as shipped, labels as PNG of raw values.
"""
