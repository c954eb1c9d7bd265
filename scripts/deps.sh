#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that a purpose needs: deps.sh build|test|bench|bench-gate|bench-front|lint. Quiet when nothing is missing.
# Without root it prints the one line that would install them and exits 2.
set -eu

# One row a purpose; each contains those before it.
build="gcc libc6-dev clang llvm meson ninja-build pkg-config python3 bpftool linux-libc-dev libbpf-dev libelf-dev zlib1g-dev
	libuv1-dev libssl-dev libsodium-dev liblmdb-dev libcyaml-dev libyaml-dev libjansson-dev libseccomp-dev libcap-ng-dev libmnl-dev libmicrohttpd-dev
	libcmocka-dev"
test="$build libasan8 libubsan1 libclang-rt-14-dev iproute2 iputils-ping nftables ethtool tcpdump curl nginx-light openssl openssh-server openssh-client
	dnsmasq-base bind9-dnsutils procps coturn stun-client sip-tester kamailio baresip-core linphone-cli sipsak"
bench="$test linux-perf"
bench_gate="$test util-linux"
bench_front="$test util-linux"
lint="$build clang-format clang-tidy cppcheck"

case "${1:-}" in
build) want=$build ;;
test) want=$test ;;
bench) want=$bench ;;
bench-gate) want=$bench_gate ;;
bench-front) want=$bench_front ;;
lint) want=$lint ;;
*)
	echo "usage: $0 build|test|bench|bench-gate|bench-front|lint" >&2
	exit 2
	;;
esac

missing=""
for p in $want; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "missing packages; install them with: sudo apt-get install --no-install-recommends$missing" >&2
	exit 2
fi

# The packages bring daemons (nginx, sshd, …) of which only the lab starts its own: do not let them start here.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
if [ -e $policy ]; then
	trap 'rm -f "$log"' EXIT
else
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f $policy "$log"' EXIT
fi
echo "installing:$missing"
if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	echo "could not install:$missing" >&2
	exit 2
fi
