"""Figure 8: SAN, a side network trained on the frozen CLIP, its queries begun in three ways.

`settings` (what conf/san says, its runs, where their files are), `cost` (what they take), `store`
(pictures, classes and CLIP's tokens, kept on the disk), `regions` and `queries` (CLIPtrase's
regions and what queries begin as), `network`, `recognition` and `model` (SAN), `losses`, `train` (a
run), `figure` (all runs). SAN: arXiv 2302.12242; the paper's use of it is in its supplement, B.3.
"""
