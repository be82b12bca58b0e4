# shellcheck shell=bash
# Sourced by the scripts beside it: makes .venv in the clone hold exactly what one lock file names.
# Needs bash, the usual small tools and a Python; everything else is installed into .venv, checked by hash.

tollgate_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
tollgate_venv=$tollgate_root/.venv
tollgate_mark=$tollgate_venv/installed-lock # what the last finished installation was of

# Bytecode is kept whatever the caller's environment says: else each process compiles all that it imports,
# which doubles what a start costs, and a world is a dozen processes.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# A path given by the caller, made independent of the working directory.
absolute_path() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s/%s\n' "$PWD" "$1" ;;
  esac
}

# Prints the interpreter to build .venv from: never one inside a virtual environment, which may be .venv itself.
find_python() {
  local candidate found reasons=''
  for candidate in ${TOLLGATE_PYTHON:+"$TOLLGATE_PYTHON"} python3 python3.13 python3.12 python3.11 python3.14; do
    found=$("$candidate" - 2>/dev/null <<'PYTHON'
import sys

if sys.version_info < (3, 11):
    print("reason it is Python %d.%d" % sys.version_info[:2])
else:
    try:
        import ensurepip, venv
    except ImportError as error:
        print("reason it has no module %s" % error.name)
    else:
        print("python %s" % getattr(sys, "_base_executable", sys.executable))
PYTHON
    ) || continue # not there, or a version switcher's empty shim
    case $found in
      'python '*)
        printf '%s\n' "${found#python }"
        return
        ;;
      'reason '*) reasons+="  $candidate will not do: ${found#reason }."$'\n' ;;
    esac
  done
  say "Tollgate needs Python 3.11 or later with its venv and ensurepip modules, and found none."
  printf '%s' "$reasons" >&2
  cat >&2 <<'MESSAGE'
  Debian, Ubuntu:  apt-get install python3 python3-venv   (or python3.11 python3.11-venv)
  Fedora:          dnf install python3
  Or set TOLLGATE_PYTHON to the path of one.
MESSAGE
  exit 1
}

# Whatever changes the content of .venv: its interpreter, its place, and the files that say what goes in.
environment_digest() {
  {
    "$tollgate_venv/bin/python" -V && printf '%s\n' "$tollgate_root"
    cd "$tollgate_root" && cat pyproject.toml requirements-installer.lock "requirements-$1.lock"
  } 2>/dev/null | cksum
}

# True if .venv holds what is asked for. Each lock holds everything of those before it: run, distributed, test.
environment_ready() {
  local installed='' digest='' wanted=$1
  [ -r "$tollgate_mark" ] && read -r installed digest <"$tollgate_mark"
  case $wanted-$installed in
    run-distributed | run-test | distributed-test) wanted=$installed ;;
  esac
  [ "$installed" = "$wanted" ] && [ "$digest" = "$(environment_digest "$wanted")" ]
}

# Holds the lock until file descriptor 9 is closed or the script ends. A lock of flock(2) belongs to the
# open file, so Python may take it for us: the flock command is not everywhere.
wait_for_turn() {
  exec 9>>"$tollgate_root/.venv.lock"
  "$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && return
  say "another script is preparing $tollgate_venv, waiting for it ..."
  "$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}

# Each step only after the one before: called in a condition, where `set -e` does not hold.
install_packages() {
  local kind=$1 quiet=--quiet
  [ -t 2 ] && quiet='' # a person sees how far the download is
  cd "$tollgate_root" || return
  # uv reads no settings of pip; a mirror set for pip serves uv too.
  if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"; fi
  export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}" PIP_USER=0
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes --no-deps --only-binary :all: --requirement requirements-installer.lock &&
    # Wheels only: nothing that was downloaded runs while it is installed.
    .venv/bin/uv pip sync ${quiet:+"$quiet"} --python .venv/bin/python --require-hashes --no-build "requirements-$kind.lock" &&
    # Our own package by reference, so that a change of the source needs no installation.
    .venv/bin/uv pip install ${quiet:+"$quiet"} --python .venv/bin/python --offline --no-deps --editable .
}

install_environment() {
  local python=$1 kind=$2 made_from finished=no
  [ -r "$tollgate_mark" ] && finished=yes # else the last installation was cut off, and what it left is not to be trusted
  rm -f "$tollgate_mark"
  # A venv knows its own path: a moved clone needs another.
  made_from="$("$python" -V) $python for $tollgate_venv"
  if [ $finished = yes ] && [ "$made_from" = "$(cat "$tollgate_venv/made-from" 2>/dev/null)" ]; then
    say "bringing $tollgate_venv up to date ..."
  else
    say "making $tollgate_venv with $("$python" -V); the first time takes a minute or so ..."
    "$python" -m venv --clear "$tollgate_venv"
    printf '%s\n' "$made_from" >"$tollgate_venv/made-from"
  fi
  (install_packages "$kind") ||
    fail "the installation failed, see above. What was downloaded is kept for the next run."
  printf '%s %s\n' "$kind" "$(environment_digest "$kind")" >"$tollgate_mark"
}

# ensure_environment run|distributed|test: returns at once if .venv is ready; safe to run twice at the same time.
ensure_environment() {
  local python kind=$1
  environment_ready "$kind" && return
  python=$(find_python) || exit 1
  wait_for_turn "$python"
  if ! environment_ready "$kind"; then
    # What another script asked for stays there: two scripts in turn must not undo each other.
    [ $kind = run ] && [ -r "$tollgate_venv/bin/jgo" ] && kind='distributed'
    [ -r "$tollgate_venv/bin/pytest" ] && kind='test'
    install_environment "$python" "$kind"
  fi
  exec 9>&-
}
