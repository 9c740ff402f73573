# Sourced by the other scripts: `ensure_venv EXTRAS` makes the virtual environment and installs jaxlab into it,
# once: a stamp remembers what was installed from which pyproject.toml by which Python.
# PYTHON names the interpreter to make it with (python3), JAXLAB_VENV its folder (.venv).

ensure_venv() {
  local extras="$1" python="${PYTHON:-python3}"
  VENV="${JAXLAB_VENV:-.venv}"
  if ! command -v "$python" >/dev/null 2>&1; then
    echo "error: no $python here; install Python 3.11 or newer, or set PYTHON" >&2
    return 2
  fi
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $("$python" --version) is too old; jaxlab needs 3.11 or newer (set PYTHON to one)" >&2
    return 2
  fi
  local wanted
  wanted="$("$python" -c 'import hashlib, pathlib, sys
print(hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes()).hexdigest(), sys.version.split()[0], pathlib.Path.cwd())')"
  local stamp="$VENV/installed${extras:+-$extras}"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$VENV/bin/python" -c 'import sys' 2>/dev/null; then
    return 0
  fi
  # A Python that has changed, or an environment that was only half made, is no base to install into.
  if ! "$VENV/bin/python" -c 'import sys' 2>/dev/null ||
    [ "$("$VENV/bin/python" --version)" != "$("$python" --version)" ]; then
    echo "making $VENV with $("$python" --version)" >&2
    if ! "$python" -m venv --clear "$VENV"; then
      echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
      return 1
    fi
  fi
  rm -f "$VENV"/installed*
  echo "installing jaxlab${extras:+[$extras]} into $VENV (the first time takes a minute or two)" >&2
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}" >&2 || return 1
  echo "$wanted" >"$stamp"
}
