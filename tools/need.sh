#!/bin/sh
# Makes sure of what pip cannot install. What is missing is installed where that can be done without asking (root, on a
# system with apt); elsewhere one line says what to install.
#
# usage: need.sh venv PYTHON FOLDER     a new virtual environment, in place of what was there
#        need.sh compiler
#        need.sh clang                  with libFuzzer
#        need.sh headers PYTHON         Python.h
#        need.sh libcrypto              pkg-config and OpenSSL's headers, for the C example
#        need.sh debootstrap
#        need.sh spin                   the model checker
#        need.sh suite PYTHON FOLDER    CPython's tests, in FOLDER/test if they do not come with PYTHON
set -eu

# install WHAT PACKAGE...
install() {
    what=$1
    shift
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "weirpool: $what is missing; install it first (Debian, Ubuntu: apt-get install $*)" >&2
        exit 1
    fi
    echo "weirpool: $what is missing; installing $*" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1 || {
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends "$@" >/dev/null
    }
}

# package PYTHON SUFFIX: Debian's package beside that interpreter, such as python3.11-dev
package() {
    "$1" -c "import sys; print('python%d.%d-$2' % sys.version_info[:2])"
}

has_compiler() {
    echo '#include <stdio.h>' | ${CC:-cc} -E -o /dev/null - 2>/dev/null
}

has_clang() {
    echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 99; }' |
        clang -x c -fsanitize=fuzzer,address -o /dev/null - 2>/dev/null
}

has_headers() {
    "$1" -c "import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
}

has_libcrypto() {
    pkg-config --exists libcrypto 2>/dev/null
}

has_suite() {
    "$1" -c "
import importlib.util, sys
sys.exit(importlib.util.find_spec('test.test_concurrent_futures') is None)" 2>/dev/null
}

# fetch_suite PYTHON FOLDER: Debian has the tests in a package of their own, which need not be installed to be read.
fetch_suite() {
    version=$("$1" -c "import sys; print('%d.%d' % sys.version_info[:2])")
    suite=libpython$version-testsuite
    rm -rf "$2.part"
    mkdir -p "$2.part"
    { command -v apt-get && command -v dpkg-deb; } >/dev/null || {
        echo "weirpool: $1 comes without CPython's tests; Debian has them in $suite" >&2
        exit 1
    }
    echo "weirpool: fetching CPython's tests ($suite)" >&2
    (
        cd "$2.part"
        apt-get download -qq "$suite" 2>/dev/null || {
            [ "$(id -u)" -ne 0 ] || apt-get update -qq
            apt-get download -qq "$suite" 2>/dev/null
        } || {
            echo "weirpool: this system has no package $suite; choose another interpreter with make PYTHON=..." >&2
            exit 1
        }
        dpkg-deb -x ./*.deb .
    )
    mkdir -p "$2"
    mv "$2.part/usr/lib/python$version/test" "$2/test"
    rm -rf "$2.part"
}

case $1 in
venv)
    "$2" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "weirpool: $2 is not Python 3.11 or newer; choose another with make PYTHON=..." >&2
        exit 1
    }
    "$2" -c 'import ensurepip, venv' 2>/dev/null || install 'the venv module' "$(package "$2" venv)"
    rm -rf "$3"
    "$2" -m venv "$3"
    ;;
compiler)
    has_compiler || install 'a C compiler' gcc libc6-dev
    ;;
clang)
    has_clang || install 'clang, or its libFuzzer,' clang llvm 'libclang-rt-dev'
    has_clang || {
        echo 'weirpool: this clang has no libFuzzer; install its run-time library (Debian: libclang-rt-VERSION-dev)' >&2
        exit 1
    }
    ;;
headers)
    has_headers "$2" || install 'Python.h' "$(package "$2" dev)"
    has_headers "$2" || {
        echo "weirpool: $2 has no Python.h; choose another interpreter with make PYTHON=..." >&2
        exit 1
    }
    ;;
libcrypto)
    has_libcrypto || install 'pkg-config or libcrypto' pkg-config libssl-dev
    ;;
suite)
    has_suite "$2" || test -d "$3/test" || fetch_suite "$2" "$3"
    ;;
spin)
    command -v spin >/dev/null || install spin spin
    has_compiler || install 'a C compiler' gcc libc6-dev
    ;;
debootstrap)
    command -v debootstrap >/dev/null || install debootstrap debootstrap
    ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
