"""Options for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# A property must hold, not hold within 200 ms on a busy machine; pytest's own timeout ends what
# hangs. CI also draws the same examples every time, so that a red run can be repeated.
settings.register_profile("holdfast", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "holdfast")
