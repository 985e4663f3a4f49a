# Shared by the scripts of hack/: messages on stderr, checks for tools.
# Sourced, never run.

# Folder of the repository.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# Prints a line for the person who waits.
say() { printf '%s\n' "$*" >&2; }

# Ends the script with one clear line.
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# need TOOL HINT: ends the script unless TOOL can be run.
need() {
  command -v "$1" >/dev/null 2>&1 || die "$1 is missing: $2"
}
