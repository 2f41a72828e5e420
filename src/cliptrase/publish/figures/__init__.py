"""The figures of a suite. Charts of the tidy frame: `style`, `charts`, `overview`, `certainty`.
Pictures: `label_maps`, `attention`; `quantities` (what the paper's figures show of a picture, as
arrays), `paper_figures` (drawn), `explanation` (in words); `pictures` (those of a suite),
`command`."""
