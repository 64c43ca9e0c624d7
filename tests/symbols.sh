#!/bin/sh
# usage: symbols.sh libweirpool.so libweirpool.a
# The shared library shows weirpool_* and nothing else, and asks for nothing of Python. In the static library, where
# internal names can be seen too, those are wp_*.
set -eu

fail() {
    printf 'symbols: %s:\n%s\n' "$1" "$2" >&2
    exit 1
}

# The names only: last column of "value type name", or of "type name" where nothing is defined.
names() {
    LC_ALL=C nm -P "$@" | awk 'NF > 1 { print $1 }' | sed 's/@.*//' | sort -u
}

public=$(names -D --defined-only "$1")
[ -n "$public" ] || fail "$1 has no public symbol" ''

alien=$(printf '%s\n' "$public" | grep -v '^weirpool_' || true)
[ -z "$alien" ] || fail 'public symbols outside weirpool_*' "$alien"

python=$(names -D "$1" | grep -E '^_?Py' || true)
[ -z "$python" ] || fail 'symbols of Python' "$python"

alien=$(names -g --defined-only "$2" | grep -v -E '^(weirpool|wp)_' || true)
[ -z "$alien" ] || fail 'names in the static library outside weirpool_* and wp_*' "$alien"

printf '%s public symbols, all weirpool_*\n' "$(printf '%s\n' "$public" | wc -l)"
