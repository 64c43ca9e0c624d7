#!/bin/sh
# usage: run.sh BUILD PREFIX
# Installs the core from the build folder BUILD, which was configured with that PREFIX, and does what a user of the
# library does: compiles the example with pkg-config, once for the shared and once for the static library, and runs it.
# What it prints has to be what sha256sum prints.
set -eu

build=$1
prefix=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "install: $1" >&2
    exit 1
}

rm -rf "$prefix"
meson install -C "$build" --quiet
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"

# compile PROGRAM [FLAG...]
compile() {
    program=$1
    shift
    # shellcheck disable=SC2046 # flags are words
    ${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Werror "$root/examples/hash_tree.c" -o "$program" \
        $(pkg-config --cflags weirpool libcrypto) "$@" $(pkg-config --libs libcrypto)
}

# shellcheck disable=SC2046
compile "$work/shared" $(pkg-config --libs weirpool) -Wl,-rpath,"$prefix/lib"
# shellcheck disable=SC2046
compile "$work/static" "$prefix/lib/libweirpool.a" $(pkg-config --libs --static weirpool | sed 's/-lweirpool//')

tree=$work/tree
mkdir -p "$tree/folder with spaces/below" "$tree/empty folder"
: >"$tree/empty file"
head -c 10000000 /dev/urandom >"$tree/folder with spaces/ten megabytes"
for i in $(seq 200); do
    head -c "$i$i" /dev/urandom >"$tree/folder with spaces/below/$i"
done
find "$tree" -type f -exec sha256sum {} + | sort >"$work/expected"

for program in shared static; do
    "$work/$program" "$tree" >"$work/output" || fail "the example ($program library) failed"
    sort "$work/output" | cmp - "$work/expected" || fail "the example ($program library) hashes unlike sha256sum"
done
ldd "$work/shared" | grep -q "$prefix/lib/libweirpool.so.0" || fail 'the example does not use the installed library'

count=$(wc -l <"$work/expected")
echo "install: the example hashed $count files like sha256sum, with the shared and the static library"
