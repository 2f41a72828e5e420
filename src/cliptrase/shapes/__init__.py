"""The embedded benchmark: scenes of textured objects with pixel labels and captions, from a seed.

`concepts` names things, `scenes` draws them, `captions` says what is on them. No torch here.
"""
