"""CLIP through open_clip's public pieces: tokens at a block, the last blocks' attention, text."""
