"""The page of a suite: `predict_pictures` (a command) makes `kept_pictures`; `table_facts`,
`run_facts` and `pair_facts` are parts of `contents`, what the page says; `command` writes it, by
the template in template/."""

from pathlib import Path

PAGE_FILES = Path(__file__).with_name("template")  # of a page: HTML, style and script
