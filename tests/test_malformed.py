"""Malformed configs, overrides and data files end with one sentence and exit code 2, never with a traceback.

The cases are those of ``scripts/faults_inputs.py``, which tries 5,000 and 500 of them.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from jaxlab import cli
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.run.fields import explained

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def faults():
    """Return the script, as a module."""
    spec = importlib.util.spec_from_file_location("faults_inputs", ROOT / "scripts" / "faults_inputs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    logging.disable(logging.NOTSET)


def losses(rows, capsys):
    said = capsys.readouterr().err
    assert sum(row["runs"] for row in rows) > 0
    return {row["fault"]: said for row in rows if row["losses"]}


def test_malformed_configs_and_overrides_end_with_a_sentence(faults, capsys):
    assert losses(faults.run(configs=250, files=0), capsys) == {}


def test_malformed_data_files_end_with_a_sentence(faults, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert losses(faults.run(configs=0, files=150), capsys) == {}


def test_the_config_that_is_spoilt_is_sound(faults, tmp_path, capsys):
    (tmp_path / "config.json").write_text(faults.json.dumps(faults.BASE))
    assert cli.main(["check", f"--config={tmp_path}/config.json"]) == 0


def test_a_loss_would_be_seen(faults):
    assert "ValueError" in faults.verdict(lambda: int("x"))
    assert "ended with 1" in faults.verdict(lambda: 1)
    assert "ended with 2" in faults.verdict(lambda: 2)
    assert faults.verdict(lambda: print("error: a sentence", file=sys.stderr) or 2) == ""


def test_what_goes_wrong_with_parts_is_a_sentence_of_one_line_and_a_users_error_stays_what_it_is():
    with pytest.raises(ConfigError, match=r"^config\.model: ValueError: a$"), explained("config.model"):
        raise ValueError("a\nb")
    with pytest.raises(DataError, match=r"^c$"), explained("config.model"):
        raise DataError("c")
