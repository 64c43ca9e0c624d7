#!/bin/sh
# Tests of the Python package, built with the address and undefined behaviour sanitizers. The interpreter is not built
# with them, so that their runtime is preloaded, and what it leaks at its exit is not looked for.
#
# usage: PYTHON=... sanitize.sh BUILD_FOLDER TEST_FILE...
set -eu

build=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
site=$root/$build/site
mkdir -p "$root/$build"
cd "$root"
reconfigure=
test ! -f "$build/meson/build.ninja" || reconfigure=--reconfigure
meson setup $reconfigure "$build/meson" -Dtests=false -Dexamples=false -Db_sanitize=address,undefined \
    -Db_lundef=false -Dc_args=-fno-sanitize-recover=undefined \
    -Dpython.platlibdir="$site" -Dpython.purelibdir="$site" >"$build/setup.log" || {
    cat "$build/setup.log"
    exit 1
}
ninja -C "$build/meson" >"$build/build.log" || {
    cat "$build/build.log"
    exit 1
}
meson install -C "$build/meson" --no-rebuild --tags runtime,python-runtime >/dev/null

runtime=
for name in libasan.so libubsan.so; do
    runtime="$runtime $(${CC:-cc} -print-file-name=$name)"
done
for test in "$@"; do
    LD_PRELOAD="$runtime" PYTHONPATH="$site" PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 \
        "$PYTHON" -X dev -W error -W 'ignore:This process:DeprecationWarning' \
        -m pytest -p no:cacheprovider -q "tests/python/$test"
done
