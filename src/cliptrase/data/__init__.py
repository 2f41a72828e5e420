"""Data: prepared datasets, folders of images and masks, label tables, lists of names."""
