#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# walk.sh BUILD [FRAMES]: random frames and grants through the gate's programs in the kernel, held against the reference in tests/model. One TAP
# line; WALNUT_PROPERTY_SEED sets the seed, which is drawn and printed otherwise. Needs root.
set -u

build=${1:?usage: walk.sh BUILD [FRAMES]}
frames=${2:-1000000}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "1..1"
if [ "$(id -u)" -ne 0 ]; then
	echo "ok 1 - gate walk # SKIP needs root"
	exit 0
fi
if WALNUT_PROPERTY_SEED=${WALNUT_PROPERTY_SEED:-random} WALNUT_PROPERTY_PACKETS=$frames CMOCKA_MESSAGE_OUTPUT=TAP \
	"$build/tests/unit/gate/test_gate_model_kernel" >"$log" 2>&1; then
	grep -E '^# (same|UDP|[a-z ]+ [0-9]+,)' "$log"
	echo "ok 1 - gate walk: $(sed -n 's/^# same: \([^:]*\):.*/\1/p' "$log")"
else
	grep -v '^1\.\.' "$log" | sed 's/^/# /'
	echo "not ok 1 - gate walk"
	exit 1
fi
