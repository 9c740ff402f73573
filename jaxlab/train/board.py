"""What the processes of a run tell each other beside compiled programs: short texts under names, and barriers.

The only file that reaches for the client of ``jax.distributed``, which has no public name; Orbax uses the same.
Works on any thread, whatever the devices do. Usage: ``board = Board("train-0"); board.put("at/0", "17")``.
"""

from __future__ import annotations

from typing import Any

import jax
from jax._src import distributed

WAIT = 1800.0  # seconds for what another process may be busy with, such as reading data


def _client() -> Any:
    return distributed.global_state.client


def number() -> int:
    """Return which of the processes this one is, 0 where it is alone; looks at no devices.

    It is the coordinator's number. Devices have their own, `jax.process_index`, which on TPU pods may be another.
    """
    return distributed.global_state.process_id


class Board:
    """Texts that all processes see; each name is written once."""

    def __init__(self, name: str) -> None:
        """Use the names that begin with `name`, the same on every process."""
        self._name, self._client = f"jaxlab/{name}", _client()
        self.process, self.processes = distributed.global_state.process_id, distributed.global_state.num_processes

    def put(self, key: str, text: str) -> bool:
        """Write a text, seen by all; return whether there was none of that name yet."""
        try:
            self._client.key_value_set(f"{self._name}/{key}", text)
        except jax.errors.JaxRuntimeError as error:
            if "ALREADY_EXISTS" not in str(error):
                raise
            return False
        return True

    def take(self, key: str, seconds: float = WAIT) -> str:
        """Return the text of a name, once there is one.

        Raises:
          TimeoutError: there was none for so long.
        """
        try:
            return self._client.blocking_key_value_get(f"{self._name}/{key}", int(seconds * 1000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            raise TimeoutError(f"{key}: nothing from the other processes for {seconds:g} s") from error

    def under(self, folder: str) -> dict[str, str]:
        """Return the texts whose names begin with ``folder/``, by what follows."""
        found = self._client.key_value_dir_get(f"{self._name}/{folder}/")
        return {name.rpartition("/")[2]: text for name, text in found}

    def barrier(self, key: str, seconds: float = WAIT) -> None:
        """Wait until every process has come here; a name serves once."""
        self._client.wait_at_barrier(f"{self._name}/{key}", int(seconds * 1000))

    def answers(self) -> bool:
        """Say whether the process that holds the texts can be reached and has no error of its own."""
        try:
            self._client.key_value_try_get(f"{self._name}/nothing")
        except jax.errors.JaxRuntimeError as error:
            return "NOT_FOUND" in str(error)
        return True
