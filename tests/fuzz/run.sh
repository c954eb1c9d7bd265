#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh SECONDS [TARGET...]: builds the fuzz targets and runs each for so long, from its seeds in corpus/. One TAP line a target; exit status 1
# when one of them stopped. The input that stopped it is kept as build-fuzz/TARGET-crash-…, the run's log as build-fuzz/TARGET.log.
# run.sh --list: the names of the targets.
set -u

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
build=$root/build-fuzz
targets="sip_datagram sip_stream sip_quick sip_scan sip_syntax sip_response sip_caller digest sdp ticket update users socks enrol gate_record gate"
seconds=${1:-}
case "$seconds" in
--list)
	echo "$targets"
	exit 0
	;;
'' | *[!0-9]*)
	echo "usage: $0 SECONDS [TARGET...]" >&2
	exit 2
	;;
esac
shift
# shellcheck disable=SC2086 # a word each
[ $# -gt 0 ] || set -- $targets

if [ ! -f "$build/build.ninja" ]; then
	CC=clang meson setup "$build" "$root" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
		-Dc_args="-fsanitize=fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer" >"$build.setup.log" 2>&1 || {
		cat "$build.setup.log" >&2
		exit 2
	}
	rm -f "$build.setup.log"
fi
ninja -C "$build" fuzz >"$build/ninja.log" 2>&1 || {
	cat "$build/ninja.log" >&2
	exit 2
}

echo "1..$#"
status=0
number=0
for target; do
	number=$((number + 1))
	fresh=$(mktemp -d "$build/$target-fresh.XXXXXX")
	more=""
	dict=""
	case "$target" in
	sip_*)
		more=$root/tests/vectors/rfc4475
		dict=-dict=$here/sip.dict
		;;
	digest) dict=-dict=$here/digest.dict ;;
	sdp) dict=-dict=$here/sdp.dict ;;
	enrol) dict=-dict=$here/enrol.dict ;;
	esac
	# shellcheck disable=SC2086 # absent arguments must vanish
	if "$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -max_len=4096 -rss_limit_mb=1024 -print_final_stats=1 \
		$dict -artifact_prefix="$build/$target-" "$fresh" "$here/corpus/$target" $more >"$build/$target.log" 2>&1; then
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$target.log")
		echo "ok $number - fuzz $target: $runs runs in $seconds s"
	else
		status=1
		echo "not ok $number - fuzz $target: see $build/$target.log"
		grep -E 'broken:|ERROR|runtime error|SUMMARY' "$build/$target.log" | sed 's/^/# /'
	fi
	rm -rf "$fresh"
done
exit $status
