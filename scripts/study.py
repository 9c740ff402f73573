"""The same as ``jaxlab study``, for those who launch scripts: ``python scripts/study.py --study=F --workdir=D``."""

import sys

from jaxlab.cli import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
