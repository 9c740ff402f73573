"""Prepare a data set: ``python scripts/prepare_data.py NAME [--data_dir=D]``.

Logs go to stderr; the last line of stdout is one JSON object. Exit codes: 0 done, 2 no such data set or no data.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys

from jaxlab.core.errors import JaxlabError
from jaxlab.data import builders
from jaxlab.data.preparation.prepare import prepare


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description="Fetch a data set and write it for training.")
    parser.add_argument("name", help=f"one of {', '.join(builders.names())}, or module:Builder of your own")
    parser.add_argument("--data_dir", help="root of all data sets; default $TFDS_DATA_DIR or ~/tensorflow_datasets")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        result = prepare(arguments.name, arguments.data_dir)
    except JaxlabError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return error.exit_code
    if result["already_prepared"]:
        logging.info("%s is already prepared in %s", result["dataset"], result["path"])
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
