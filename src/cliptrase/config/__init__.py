"""What ONE run is: conf/ composed with overrides, checked, derived, named. `resolve` is the way in.

Reads YAML only; imports neither torch nor Hydra, so that planning a suite costs nothing.
"""

from cliptrase.config.compose import compose as compose
from cliptrase.config.compose import parse_value as parse_value
from cliptrase.config.files import load as load
from cliptrase.config.files import names as names
from cliptrase.config.pictures import picture_overrides as picture_overrides
from cliptrase.config.pictures import resolve_settings as resolve_settings
from cliptrase.config.run import Run as Run
from cliptrase.config.run import resolve as resolve
from cliptrase.config.settings import dbscan_defaults as dbscan_defaults
