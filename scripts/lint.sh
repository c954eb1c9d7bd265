#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the compilers and checkers say of the tree: nothing, or the lint fails.
set -eu
cd "$(dirname "$0")/.."
bad=0

[ -d build-clang ] || CC=clang meson setup build-clang >/dev/null
ninja --quiet -C build-clang || bad=1

files=$(git ls-files 'src/*.[ch]' 'lab/*.[ch]' 'bench/*.[ch]' 'tests/*.[ch]')
clang-format --dry-run -Werror $files || bad=1

sources=$(git ls-files 'src/*.c' 'lab/*.c' | grep -v '/bpf/')
echo "$sources" | xargs -P 2 -n 4 clang-tidy --quiet -p build-clang --warnings-as-errors='*' 2>/dev/null || bad=1
echo "$sources" | xargs cppcheck --quiet --std=c11 --enable=warning,portability,performance --inline-suppr --error-exitcode=1 \
	--suppress=missingIncludeSystem --library=scripts/cppcheck.cfg -Isrc -D__linux__ -j 2 || bad=1

[ $bad -eq 0 ] && echo "lint: clean"
exit $bad
