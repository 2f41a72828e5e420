"""The figures of a suite. Charts of the tidy frame: `style`, `charts`, `overview`, `certainty`.
Pictures: `label_maps`, `attention`; `quantities` (what the paper's figures show of a picture, as
arrays), `explanation` (in words), `parts`, `between_patches`, `cluster_figures`, `paper_figures`
(all of these by name); `shown_runs`, `predicted` and `pictures` (those of a suite), `command`."""
