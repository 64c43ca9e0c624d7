#!/bin/sh
# usage: test_all.sh PYTHON...
# Runs `make test` with each interpreter, in a virtual environment of its own below build/. One that fails does not keep
# the others from running. Prints a table at the end; the exit status is 1 if any failed.
set -u

if [ $# -eq 0 ]; then
    echo "weirpool: no python3.11 or newer is on PATH; name interpreters with make test-all PYTHONS='...'" >&2
    exit 1
fi

table=$(mktemp)
trap 'rm -f "$table"' EXIT
exec 3>&1 # what the runs say
trap 'exit 130' INT TERM # else Ctrl-C would end one run and start the next

version_of() {
    "$1" -c 'import sys; print("%d.%d.%d%s" % (*sys.version_info[:3], sys.abiflags))' 2>/dev/null
}

# run_with PYTHON: what came of it
run_with() {
    version=$(version_of "$1") || {
        echo 'cannot be run'
        return
    }
    if ${MAKE:-make} --no-print-directory PYTHON="$1" VENV="build/venv-$version" test >&3 2>&1; then
        echo passed
    else
        echo failed
    fi
}

for python; do
    echo "==== make test with $python"
    began=$(date +%s)
    result=$(run_with "$python")
    printf '%-10s %-14s %4s s  %s\n' \
        "$(version_of "$python" || echo '?')" "$result" "$(($(date +%s) - began))" "$python" >>"$table"
done

printf '\n%-10s %-14s %6s  %s\n' Python result time interpreter
cat "$table"
[ "$(awk '{ print $2 }' "$table" | sort -u)" = passed ]
