#!/bin/sh
# Installs midge from the archive this lies in, and undoes it. For any shell; BusyBox is enough.
#
#   ./install.sh                      install, or upgrade; enable and start the service
#   ./install.sh --init KIND          for procd, systemd, sysv or none, instead of what is found
#   ./install.sh --no-start           neither enable nor start it
#   ./install.sh uninstall            remove what was installed, but keep configuration, user and what was stored
#   ./install.sh uninstall --purge    remove these, too
#
# With DESTDIR in the environment, files go below that folder, nothing is started, and no user is made.
# shellcheck shell=dash
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR-}
# What was written and is still there, one a line: file, link, conf, dir or user, and its name; and the init system.
list=$root/etc/midge/installed
# Lines from before the list is there.
pending=

say() {
	echo "midge: $*"
}

fail() {
	echo "midge: $*" >&2
	exit 1
}

usage() {
	sed -n 's/^#   //p' "$0" >&2
	exit 2
}

has() {
	command -v "$1" >/dev/null 2>&1
}

note() {
	if [ ! -f "$list" ]; then
		pending="$pending$1 $2
"
	elif ! grep -qxF -- "$1 $2" "$list"; then
		echo "$1 $2" >>"$list"
	fi
}

listed() {
	grep -qxF -- "$1 $2" "$list"
}

make_dir() {
	[ -n "$1" ] && [ ! -d "$root$1" ] || return 0
	make_dir "${1%/*}"
	mkdir "$root$1"
	note dir "$1"
}

# copy MODE FILE PLACE: first beside the place, so that a program that runs is no obstacle.
copy() {
	make_dir "${3%/*}"
	cp "$here/$2" "$root$3.new"
	chmod "$1" "$root$3.new"
	mv -f "$root$3.new" "$root$3"
}

put() {
	copy "$@"
	note file "$3"
}

# What is there is left alone: somebody may have changed it, or had it before.
put_conf() {
	if [ ! -e "$root$3" ]; then
		copy "$@"
		note conf "$3"
	elif ! cmp -s "$here/$2" "$root$3"; then
		say "$3 is left as it is."
	fi
}

link() {
	if [ -d "$root${2%/*}" ] && [ ! -e "$root$2" ] && [ ! -L "$root$2" ]; then
		ln -s "$1" "$root$2"
		note link "$2"
	fi
}

found_init() {
	if [ -x "$root/sbin/procd" ]; then
		echo procd
	elif [ -d "$root/run/systemd/system" ] || { [ -n "$root" ] && [ -x "$root/lib/systemd/systemd" ]; }; then
		echo systemd
	elif [ -d "$root/etc/init.d" ]; then
		echo sysv
	else
		echo none
	fi
}

has_user() {
	grep -q '^midge:' /etc/passwd
}

add_user() {
	local number=200
	[ -z "$root" ] && ! has_user || return 0
	if [ "$init" != procd ] && has useradd; then
		useradd --system --user-group --no-create-home --home-dir /var/lib/midge --shell /bin/false midge
	elif [ "$init" != procd ] && has adduser; then
		adduser -S -D -H -h /var/lib/midge -s /bin/false midge
	else
		# As OpenWrt's packages do it, where 200 is mosquitto's number, whose files can be read so. Elsewhere it is one that is free.
		while [ "$init" != procd ] && grep -q "^[^:]*:[^:]*:$number:" /etc/passwd /etc/group; do
			number=$((number + 1))
		done
		grep -q '^midge:' /etc/group || echo "midge:x:$number:" >>/etc/group
		echo "midge:x:$number:$number:midge:/var/lib/midge:/bin/false" >>/etc/passwd
		[ ! -f /etc/shadow ] || echo "midge:*:0:0:99999:7:::" >>/etc/shadow
	fi
	note user midge
}

remove_user() {
	local file
	if has userdel; then
		userdel midge || true
	elif has deluser; then
		deluser midge || true
	fi
	for file in /etc/passwd /etc/shadow /etc/group; do
		! grep -qs '^midge:' "$file" || sed -i '/^midge:/d' "$file"
	done
}

# Whom the broker becomes.
broker_user() {
	local name
	for name in midge mosquitto nobody; do
		! grep -q "^$name:" /etc/passwd || { echo "$name"; return; }
	done
}

enable_it() {
	local level
	case $init in
	procd) link ../init.d/midge /etc/rc.d/S80midge ;;
	systemd)
		make_dir /etc/systemd/system/multi-user.target.wants
		link ../midge.service /etc/systemd/system/multi-user.target.wants/midge.service
		;;
	sysv)
		if [ -d "$root/etc/rc2.d" ]; then
			for level in 2 3 4 5; do link ../init.d/midge "/etc/rc$level.d/S20midge"; done
			for level in 0 1 6; do link ../init.d/midge "/etc/rc$level.d/K20midge"; done
		else
			# BusyBox's init as Buildroot has it: rcS starts what has such a name.
			link midge /etc/init.d/S80midge
		fi
		;;
	esac
}

start_it() {
	case $init in
	systemd) systemctl daemon-reload && systemctl restart midge.service ;;
	procd | sysv) /etc/init.d/midge restart ;;
	none) say "nothing was found that starts services; by hand it is: /usr/sbin/midge -c /etc/midge/midge.conf -d" ;;
	esac
}

stop_it() {
	case $init in
	systemd) systemctl stop midge.socket midge.service ;;
	procd | sysv) /etc/init.d/midge stop ;;
	esac
}

install_it() {
	local packaged
	[ -f "$here/midge" ] || fail "there is no program beside $0."
	for packaged in /var/lib/dpkg/info/midge.list /usr/lib/opkg/info/midge.list /lib/apk/packages/midge.list; do
		[ ! -e "$root$packaged" ] || fail "a package of midge is installed already, which this would overwrite."
	done
	make_dir /etc/midge
	printf %s "$pending" >>"$list"
	note init "$init"
	add_user
	put 755 midge /usr/sbin/midge
	put 755 install.sh /usr/share/midge/install.sh
	if [ "$init" = procd ]; then
		put 755 procd/midge /etc/init.d/midge
		put_conf 600 procd/midge.config /etc/config/midge
		put 644 procd/midge.keep /lib/upgrade/keep.d/midge
	else
		put_conf 644 midge.conf /etc/midge/midge.conf
		make_dir /etc/midge/conf.d
		put_conf 644 sysv/midge.default /etc/default/midge
		put 644 man/midge.8 /usr/share/man/man8/midge.8
		put 644 man/midge-ctl.8 /usr/share/man/man8/midge-ctl.8
		put 644 man/midge.conf.5 /usr/share/man/man5/midge.conf.5
		put 644 completion/midge.bash /usr/share/bash-completion/completions/midge
		make_dir /var/lib/midge
		[ -n "$root" ] || ! listed dir /var/lib/midge || chown "$(broker_user)" /var/lib/midge
	fi
	case $init in
	systemd)
		put 644 systemd/midge.service /etc/systemd/system/midge.service
		put 644 systemd/midge.socket /etc/systemd/system/midge.socket
		;;
	sysv) put 755 sysv/midge /etc/init.d/midge ;;
	esac
	say "it is installed for $init."
	[ "$starts" = yes ] || return 0
	enable_it
	# Mosquitto may have its port still.
	[ -n "$root" ] || start_it || say "it does not run yet."
}

# each KIND COMMAND: for those of the list, the last first, so that folders come after what is in them.
each() {
	local name
	sed -n "s/^$1 //p" "$list" | sed -n '1!G;h;$p' | while read -r name; do
		"$2" "$name"
	done
}

remove() {
	rm -f "$root$1"
}

# Those that were made and have nothing in them.
remove_dirs() {
	local dir
	sed -n 's/^dir //p' "$old" | sed -n '1!G;h;$p' | while read -r dir; do
		case "$purges$dir" in
		no/etc/* | no/var/lib/midge) continue ;;
		esac
		if [ -d "$root$dir" ] && ! rmdir "$root$dir" 2>/dev/null; then
			[ "$purges" = no ] || say "$dir is left, because something else is in it."
		fi
	done
}

uninstall() {
	[ -f "$list" ] || fail "there is nothing to undo: $list is missing."
	init=$(sed -n 's/^init //p' "$list" | tail -n 1)
	[ -n "$root" ] || [ ! -x /usr/sbin/midge ] || stop_it || true
	each link remove
	each file remove
	[ -n "$root" ] || [ "$init" != systemd ] || systemctl daemon-reload || true
	if [ "$purges" = yes ]; then
		each conf remove
		! listed dir /var/lib/midge || rm -rf "$root/var/lib/midge"
		if [ -z "$root" ]; then
			rm -rf /var/run/midge
			! listed user midge || remove_user
		fi
	fi
	# Out of the way of its folder, and back for a purge that may follow.
	old=$(mktemp)
	sed -e '/^link /d' -e '/^file /d' "$list" >"$old"
	rm "$list"
	remove_dirs
	if [ "$purges" = yes ]; then
		say "it is uninstalled; its configuration and what it stored are gone, too."
	else
		cp "$old" "$list"
		say "it is uninstalled; its configuration and what it stored are kept. --purge removes them, too."
	fi
	rm "$old"
}

action=install
init=
starts=yes
purges=no
while [ $# -gt 0 ]; do
	case "$1" in
	install | uninstall) action=$1 ;;
	--init)
		[ $# -ge 2 ] || usage
		shift
		init=$1
		;;
	--no-start) starts=no ;;
	--purge) purges=yes ;;
	*) usage ;;
	esac
	shift
done
[ -n "$init" ] || init=$(found_init)
case $init in
procd | systemd | sysv | none) ;;
*) usage ;;
esac
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "only root can do that."
if [ "$action" = install ]; then install_it; else uninstall; fi
