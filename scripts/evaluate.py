"""The same as ``jaxlab evaluate``, for those who launch scripts: ``python scripts/evaluate.py --workdir=D``."""

import sys

from jaxlab.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
