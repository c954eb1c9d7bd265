#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# walk.sh BUILD [PACKETS]: random frames and grants through the gate's programs in the kernel, held against the reference in tests/model; then a
# forger's packets against flows in use. One TAP line each; WALNUT_PROPERTY_SEED sets the seed, which is drawn and printed otherwise. Needs root.
set -u

build=${1:?usage: walk.sh BUILD [PACKETS]}
packets=${2:-1000000}
export WALNUT_PROPERTY_PACKETS="$packets" WALNUT_FORGER_PACKETS="$packets" CMOCKA_MESSAGE_OUTPUT=TAP
export WALNUT_PROPERTY_SEED="${WALNUT_PROPERTY_SEED:-$(date +%s%N)}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "1..2"
if [ "$(id -u)" -ne 0 ]; then
	echo "ok 1 - gate walk # SKIP needs root"
	echo "ok 2 - gate forger # SKIP needs root"
	exit 0
fi
status=0
number=0
for what in model_kernel dp_forger; do
	number=$((number + 1))
	if "$build/tests/unit/gate/test_gate_$what" >"$log" 2>&1; then
		grep -E '^# (# )?(same|UDP|seed|a blind)' "$log" | sed 's/^# # /# /'
		echo "ok $number - gate $what: $packets packets, seed $WALNUT_PROPERTY_SEED"
	else
		sed 's/^/# /' "$log"
		echo "not ok $number - gate $what: $packets packets, seed $WALNUT_PROPERTY_SEED"
		status=1
	fi
done
exit $status
