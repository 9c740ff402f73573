"""The tests of several processes share helpers and plug-ins with those of training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "train"))
os.environ["JAXLAB_ALLOW"] += ",process_plugins"
