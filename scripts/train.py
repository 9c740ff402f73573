"""The same as ``jaxlab train``, for those who launch scripts: ``python scripts/train.py --config=F --workdir=D``."""

import sys

from jaxlab.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
