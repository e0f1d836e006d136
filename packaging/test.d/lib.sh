# For the tests of the packages, which run as root in namespaces of their own: ports, mounts and processes are theirs alone.
# A check prints one line, which begins with "ok" or "FAILED".
# shellcheck shell=dash

# shellcheck disable=SC2034
packaging=$(cd "$(dirname "$0")/.." && pwd)

# check TEXT COMMAND...: what the command says is shown if it fails.
check() {
	local text=$1 said
	shift
	if said=$("$@" 2>&1); then
		echo "ok      $text"
	else
		echo "FAILED  $text"
		printf '%s\n' "$*" "$said" | sed 's/^/        /'
	fi
}

# exits CODE COMMAND...
exits() {
	local expected=$1 code=0
	shift
	"$@" || code=$?
	[ "$code" = "$expected" ] || { echo "exit code $code"; return 1; }
}

fails() {
	! "$@"
}

# within SECONDS COMMAND...: as soon as it succeeds.
within() {
	local turns=$(($1 * 20))
	shift
	until "$@" >/dev/null 2>&1; do
		turns=$((turns - 1))
		[ "$turns" -gt 0 ] || { "$@"; return; }
		sleep 0.05
	done
}

contains() {
	grep -qF -- "$2" "$1" || { echo "not in $1: $2"; cat "$1"; return 1; }
}

lacks() {
	[ -e "$1" ] && ! grep -F -- "$2" "$1"
}

# A message goes there and back.
serves() {
	local answer
	answer=$(timeout 5 mosquitto_rr -h "${1:-127.0.0.1}" -p "${2:-1883}" -q 1 -t packaging/test -e packaging/test -m there-and-back)
	[ "$answer" = there-and-back ] || { echo "answer: $answer"; return 1; }
}

serves_nobody() {
	! mosquitto_pub -h 127.0.0.1 -p "${1:-1883}" -t packaging/test -m x 2>/dev/null
}

libraries() {
	ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true
}

# machine DIR BINARY: a root folder as small boxes have it: BusyBox, and dash besides.
machine() {
	local dir=$1 file applet
	mkdir -p "$dir/bin" "$dir/sbin" "$dir/usr/bin" "$dir/usr/sbin" "$dir/etc" "$dir/dev" "$dir/proc" "$dir/tmp" "$dir/root" \
		"$dir/var/run" "$dir/var/lib" "$dir/var/log"
	ln -s var/run "$dir/run"
	cp "$(command -v busybox)" "$(command -v dash)" "$dir/bin/"
	cp "$2" "$dir/usr/sbin/midge"
	for file in $(libraries "$(command -v busybox)") $(libraries "$(command -v dash)") $(libraries "$2"); do
		[ -e "$dir$file" ] || { mkdir -p "$dir${file%/*}" && cp -L "$file" "$dir$file"; }
	done
	for applet in $(busybox --list-full); do
		[ -e "$dir/$applet" ] || { mkdir -p "$dir/${applet%/*}" && ln -s /bin/busybox "$dir/$applet"; }
	done
	printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/:/bin/false >"$dir/etc/passwd"
	printf '%s\n' root:x:0: nogroup:x:65534: >"$dir/etc/group"
	mknod -m 666 "$dir/dev/null" c 1 3
	mknod -m 666 "$dir/dev/urandom" c 1 9
	mount -t proc proc "$dir/proc"
	# Its log is /var/log/messages.
	chroot "$dir" /sbin/syslogd -n </dev/null >/dev/null 2>&1 &
	within 20 test -S "$dir/dev/log"
}
