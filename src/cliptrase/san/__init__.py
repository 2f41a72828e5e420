"""Figure 8: SAN, a side network that is trained on the frozen CLIP, its queries begun in three ways.

`settings` (what conf/san says, the runs of it, where their files are), `cost` (what they will take),
`store` (pictures, labels and CLIP's tokens, kept on the disk), `regions` and `queries` (CLIPtrase's
regions and what queries begin as), `network` and `recognition` (SAN), `losses`, `train` (a run),
`figure` (all runs). SAN: arXiv 2302.12242; what the paper did with it is in its supplement, B.3.
"""
