#!/bin/bash
# usage: core_root.sh FOLDER
# Builds the core and runs its tests in a Debian root that has a C compiler and meson, and no Python headers. The root
# is made in FOLDER with debootstrap the first time and kept. Needs root; SUITE and MIRROR choose what Debian.
set -euo pipefail

[ $# -eq 1 ] || {
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
}
[ "$(id -u)" -eq 0 ] || {
    echo 'core-root: only root can make and enter another root' >&2
    exit 1
}

suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
mkdir -p "$1"
root=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/.." && pwd)

if [ ! -e "$root/.complete" ]; then
    debootstrap --variant=minbase --include=gcc,libc6-dev,meson,ninja-build "$suite" "$root" "$mirror" \
        >"$root.log" || {
        tail -20 "$root.log" >&2
        exit 1
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb
    touch "$root/.complete"
fi

headers=$(find "$root/usr" -name Python.h)
[ -z "$headers" ] || {
    echo "core-root: there are Python headers: $headers" >&2
    exit 1
}

rm -rf "$root/weirpool"
mkdir "$root/weirpool"
tar -C "$source" -cf - meson.build meson_options.txt core tests examples | tar -C "$root/weirpool" -xf -

# The tests look at themselves in /proc, which belongs to the root only while they run.
mounted=
cleanup() {
    [ -z "$mounted" ] || umount "$root/proc"
}
trap cleanup EXIT
if ! [ -e "$root/proc/self" ]; then
    mount -t proc proc "$root/proc"
    mounted=yes
fi

inside() {
    chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C.UTF-8 HOME=/ "$@"
}

inside meson setup /weirpool/build /weirpool -Dpython=false -Dwerror=true
inside meson test -C /weirpool/build --print-errorlogs
inside meson install -C /weirpool/build --quiet --destdir /weirpool/installed
echo "core-root: built, tested and installed in $suite without Python headers"
