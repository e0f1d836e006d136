#!/bin/sh
# Mosquitto's command-line clients mosquitto_pub, mosquitto_sub and mosquitto_rr (Debian package mosquitto-clients)
# against a broker: MQTT 3.1, 3.1.1 and 5.0.
#
# usage: mosquitto.sh HOST PORT
#
# Prints `ok   mosquitto/VERSION CHECK` or `FAIL mosquitto/VERSION CHECK: reason` for each check. The exit code is not
# zero if one failed. Every check is a function that runs in a subshell, in an empty directory of its own, and fails
# with its first failing command. Waits end with an event or a time limit; that a message does not come is shown by
# another one that is sent after it and comes first.
# shellcheck disable=SC2317 # checks are called by their name
set -u

host=$1
port=$2
limit_s=15
failed=0
base=$(mktemp -d)
trap 'rm -rf "$base"' EXIT
trap 'exit 130' INT TERM

# ---- What checks are written with -----------------------------------------------------------------------------------

# Every client of a check has an id made of version, check and a name.
publish() { mosquitto_pub -h "$host" -p "$port" -V "mqtt$version" -i "$id-pub" "$@"; }
subscribe() { mosquitto_sub -h "$host" -p "$port" -V "mqtt$version" -W "$limit_s" "$@"; }
request() { mosquitto_rr -h "$host" -p "$port" -V "mqtt$version" -i "$id-rr" -W "$limit_s" "$@"; }

fail() {
    echo "$*"
    exit 1
}

# The same text, or the first lines of the difference.
same() {
    [ "$1" = "$2" ] || fail "saw '$(printf %.100s "$1")', expected '$(printf %.100s "$2")'"
}

# until_line FILE PATTERN [COUNT]: COUNT lines match.
until_line() {
    tries=$((limit_s * 50))
    until [ "$(grep -a -c -e "$2" "$1")" -ge "${3:-1}" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "no '$2' within $limit_s s: $(tail -n 3 "$1" | tr '\n' ';')"
        sleep 0.02
    done
}

# listen NAME ARGUMENT...: a subscriber in the background that has its SUBACK when this returns. Its process is $pid.
# It logs to the file NAME, and there, after a `=`, each message in the form of -F, else `qos retain topic payload`.
listen() {
    name=$1
    shift
    : >"$name"
    # Not by `subscribe`: $! must be the client, not a shell that waits for it. A log that is read must not be buffered.
    stdbuf -oL mosquitto_sub -h "$host" -p "$port" -V "mqtt$version" -W "$limit_s" -d -i "$id-$name" \
        -F '=%q %r %t %p' "$@" >"$name" 2>&1 &
    pid=$!
    echo "$pid" >>pids
    until_line "$name" '^Subscribed'
}

# messages NAME: what a subscriber of `listen` has got.
messages() { sed -n 's/^=//p' "$1"; }

# first_is_marker ARGUMENT...: a new subscriber that gets a message sent after its SUBACK, and gets that one first.
first_is_marker() {
    listen marker -q 1 -C 1 -t "$topic/marker" "$@"
    publish -q 1 -t "$topic/marker" -m marker
    wait "$pid"
    same "$(messages marker)" "1 0 $topic/marker marker"
}

# ---- The basics, in every version -----------------------------------------------------------------------------------

delivers_in_order() {
    listen sub -q "$1" -C 200 -t "$topic"
    seq 200 | sed 's/$/ of 200/' >lines
    publish -q "$1" -l -t "$topic" <lines
    wait "$pid"
    sed "s|^|$1 0 $topic |" lines >expected
    messages sub >seen
    cmp seen expected
}

large_payload() {
    head -c 1048576 /dev/urandom >payload
    listen sub -q "$1" -C 1 -F '=%x' -t "$topic"
    publish -q "$1" -t "$topic" -f payload
    wait "$pid"
    od -A n -v -t x1 payload | tr -d ' \n' >expected
    messages sub | tr -d '\n' >seen
    cmp seen expected
}

retained() {
    listen live -q 1 -C 3 -t "$topic/r"
    live=$pid
    publish -q 1 -r -t "$topic/r" -m old
    publish -q 1 -r -t "$topic/r" -m new
    same "$(subscribe -i "$id-late" -q 1 -C 1 -F '%q %r %p' -t "$topic/r")" '1 1 new'
    publish -q 1 -r -n -t "$topic/r"
    wait "$live"
    same "$(messages live)" "1 0 $topic/r old
1 0 $topic/r new
1 0 $topic/r "
    first_is_marker -t "$topic/r"
}

remove_retained() {
    for i in 1 2 3; do publish -q 1 -r -t "$topic/$i/config" -m "$i"; done
    listen remove -q 1 --remove-retained -t "$topic/+/config"
    until_line remove 'received PUBACK' 3
    same "$(messages remove | grep "^1 1" | sort)" "1 1 $topic/1/config 1
1 1 $topic/2/config 2
1 1 $topic/3/config 3"
    first_is_marker -t "$topic/+/config"
}

will_after_kill() {
    listen observer -q 1 -C 1 -t "$topic/will"
    observer=$pid
    listen victim -t "$topic/any" --will-topic "$topic/will" --will-payload gone --will-qos 1 --will-retain
    kill -KILL "$pid"
    wait "$observer"
    same "$(messages observer)" "1 0 $topic/will gone"
    same "$(subscribe -i "$id-late" -q 1 -C 1 -F '%r %p' -t "$topic/will")" '1 gone'
    publish -q 1 -r -n -t "$topic/will"
}

no_will_after_disconnect() {
    listen observer -q 1 -C 1 -t "$topic/will" -t "$topic/after"
    observer=$pid
    # After its message mosquitto_sub sends DISCONNECT.
    listen victim -C 1 -t "$topic/last" --will-topic "$topic/will" --will-payload gone --will-qos 1
    publish -q 1 -t "$topic/last" -m x
    wait "$pid"
    publish -q 1 -t "$topic/after" -m after
    wait "$observer"
    same "$(messages observer)" "1 0 $topic/after after"
}

durable_session() {
    subscribe -c -i "$id-durable" -q 2 -E -t "$topic/+"
    seq 50 | publish -q 1 -l -t "$topic/q1"
    seq 50 | publish -q 2 -l -t "$topic/q2"
    subscribe -c -i "$id-durable" -q 2 -C 100 -F '%q %p' -t "$topic/+" >seen
    seq 50 | sed 's/^/1 /' >expected
    seq 50 | sed 's/^/2 /' >>expected
    sort -s -k 1,1 seen >sorted
    cmp sorted expected
    # A clean session ends it.
    subscribe -i "$id-durable" -E -t "$topic/other"
    publish -q 1 -t "$topic/q1" -m dropped
    listen durable -c -q 1 -C 1 -t "$topic/marker"
    publish -q 1 -t "$topic/marker" -m marker
    wait "$pid"
    same "$(messages durable)" "1 0 $topic/marker marker"
}

wildcards() {
    listen plus -q 1 -C 2 -t "$topic/+/c"
    plus=$pid
    listen hash -q 1 -C 3 -t "$topic/a/#"
    hash=$pid
    for name in a a/b a/c b/b b/c; do publish -q 1 -t "$topic/$name" -m "$name"; done
    wait "$plus"
    wait "$hash"
    same "$(messages plus)" "1 0 $topic/a/c a/c
1 0 $topic/b/c b/c"
    same "$(messages hash)" "1 0 $topic/a a
1 0 $topic/a/b a/b
1 0 $topic/a/c a/c"
}

overlapping() {
    listen sub -q 1 -t "$topic/#" -t "$topic/+" -t "$topic/end"
    publish -q 1 -t "$topic/x" -m one
    publish -q 1 -t "$topic/end" -m end
    until_line sub '^=.*end$'
    case $(messages sub | grep -c 'one$') in
        1 | 2) ;;
        *) fail "$(messages sub)" ;;
    esac
}

unsubscribe() {
    subscribe -c -i "$id-durable" -q 1 -E -t "$topic/a" -t "$topic/b"
    listen durable -c -q 1 -U "$topic/a" -t "$topic/b" -C 1
    until_line durable 'received UNSUBACK'
    publish -q 1 -t "$topic/a" -m a
    publish -q 1 -t "$topic/b" -m b
    wait "$pid"
    same "$(messages durable)" "1 0 $topic/b b"
}

take_over() {
    listen first -i "$id-same" -t "$topic"
    first=$pid
    # mosquitto_sub may connect again and fight for the id: it has to wait until the second is done.
    kill -STOP "$first"
    listen second -i "$id-same" -C 1 -t "$topic"
    publish -t "$topic" -m x
    wait "$pid"
    same "$(messages second)" "0 0 $topic x"
    kill -CONT "$first"
    until_line first 'sending CONNECT\|eceived DISCONNECT' 2
    same "$(messages first)" ''
}

request_and_response() {
    listen responder -q 1 -C 1 -t "$topic/request"
    responder=$pid
    request -q 1 -t "$topic/request" -e "$topic/response" -m question -F '%p' >answer &
    requester=$!
    echo "$requester" >>pids
    wait "$responder"
    publish -q 1 -t "$topic/response" -m answer
    wait "$requester"
    same "$(messages responder)" "1 0 $topic/request question"
    same "$(cat answer)" answer
}

# ---- 5.0 ------------------------------------------------------------------------------------------------------------

properties() {
    listen sub -q 1 -C 1 -F '=%C|%R|%D|%F|%E|%P' -t "$topic"
    publish -q 1 -t "$topic" -m x -D publish content-type text/plain -D publish response-topic "$topic/answer" \
        -D publish correlation-data 4711 -D publish payload-format-indicator 1 \
        -D publish message-expiry-interval 3600 -D publish user-property b 1 -D publish user-property a 2
    wait "$pid"
    same "$(messages sub | sed 's/359[0-9]/3600/')" "text/plain|$topic/answer|4711|1|3600|b:1 a:2"
}

topic_alias() {
    listen sub -q 1 -C 3 -t "$topic"
    # mosquitto_pub sends the topic with the first message only.
    seq 3 | publish -q 1 -l -t "$topic" -D publish topic-alias 1
    wait "$pid"
    same "$(messages sub)" "1 0 $topic 1
1 0 $topic 2
1 0 $topic 3"
}

subscription_identifier() {
    listen sub -q 1 -C 1 -F '=%S' -D subscribe subscription-identifier 42 -t "$topic"
    publish -q 1 -t "$topic" -m x
    wait "$pid"
    same "$(messages sub)" 42
}

shared_subscription() {
    listen one -q 1 -t "\$share/$id/$topic"
    listen two -q 1 -t "\$share/$id/$topic"
    listen whole -q 1 -C 40 -t "$topic"
    seq 40 | publish -q 1 -l -t "$topic"
    wait "$pid"
    : >both
    tries=$((limit_s * 50))
    until [ "$(wc -l <both)" -ge 40 ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "$(wc -l <both) of 40 messages"
        sleep 0.02
        { messages one && messages two; } >both
    done
    same "$(sed 's/.* //' both | sort -n)" "$(seq 40)"
    for member in one two; do [ -n "$(messages "$member")" ] || fail "$member got nothing"; done
}

no_matching_subscribers() {
    publish -d -q 1 -t "$topic" -m x >log
    grep -q 'PUBACK (Mid: 1, RC:16)' log || fail "$(grep PUBACK log)"
}

will_properties() {
    listen observer -q 1 -C 1 -F '=%C %P' -t "$topic/will"
    observer=$pid
    listen victim -t "$topic/any" --will-topic "$topic/will" --will-payload gone -D will user-property a 1 \
        -D will content-type text/plain
    kill -KILL "$pid"
    wait "$observer"
    same "$(messages observer)" 'text/plain a:1'
}

disconnect_with_will() {
    listen observer -q 1 -C 1 -t "$topic/will"
    observer=$pid
    # TERM makes mosquitto_sub send DISCONNECT with reason code 4 in 5.0.
    listen victim -t "$topic/any" --will-topic "$topic/will" --will-payload asked --will-qos 1
    kill -TERM "$pid"
    wait "$observer"
    same "$(messages observer)" "1 0 $topic/will asked"
}

# ---- Running them ---------------------------------------------------------------------------------------------------

# check NAME FUNCTION [ARGUMENT...]
check() {
    name=$1
    shift
    number=$((number + 1))
    id="mosquitto-$version-$number"
    topic="interop/mosquitto/$version/$number"
    directory="$base/$version-$number"
    mkdir "$directory"
    : >"$directory/pids"
    # Not as a condition: that would switch `set -e` off inside.
    (cd "$directory" && set -e && "$@") >"$directory.log" 2>&1
    status=$?
    if [ "$status" -eq 0 ]; then
        echo "ok   mosquitto/$version $name"
    else
        failed=1
        # Its own words, or else the last ones of its clients.
        reason=$(tail -n 3 "$directory.log")
        [ -n "$reason" ] || reason=$(tail -q -n 1 "$directory"/*)
        echo "FAIL mosquitto/$version $name: $(printf '%s' "$reason" | tr '\n' ' ' | cut -c 1-300)"
    fi
    while read -r leftover; do kill -KILL "$leftover"; done <"$directory/pids" 2>/dev/null
}

# The shortest keep-alive mosquitto_sub takes is 5 s, so 8 s of silence need a ping. They pass beside everything else.
silence_s=8

start_keep_alive() {
    stdbuf -oL mosquitto_sub -h "$host" -p "$port" -V "mqtt$version" -i "mosquitto-$version-keep-alive" -W 120 -k 5 \
        -d -C 1 -F '=%p' -t "interop/mosquitto/$version/keep-alive" >"$base/$version-keep-alive" 2>&1 &
    echo "$!" >>"$base/keep-alive-pids"
}

stays_connected() {
    publish -q 1 -t "interop/mosquitto/$version/keep-alive" -m x
    until_line "$base/$version-keep-alive" '^=x'
    same "$(grep -c 'sending CONNECT' "$base/$version-keep-alive")" 1
    until_line "$base/$version-keep-alive" 'received PINGRESP'
}

started_s=$(date +%s)
for version in v31 v311 v5; do start_keep_alive; done

for version in v31 v311 v5; do
    number=0
    for qos in 0 1 2; do check "qos$qos: 200 messages, exact and in order" delivers_in_order "$qos"; done
    for qos in 0 1 2; do check "1 MB payload at qos$qos" large_payload "$qos"; done
    check 'retained: live without the flag, later with it, cleared by an empty payload' retained
    check 'retained: --remove-retained clears them' remove_retained
    check 'will: sent when the client is killed, retained if asked' will_after_kill
    check 'will: not sent after DISCONNECT' no_will_after_disconnect
    check 'durable session: queued qos1 and qos2 arrive in order, once; ended by a clean session' durable_session
    check 'wildcards: + and # match what they should and nothing else' wildcards
    check 'overlapping subscriptions: at least one copy, at most one each' overlapping
    check 'unsubscribe ends one filter and leaves the other' unsubscribe
    check 'take-over: the same client id ends the first connection' take_over
    check 'mosquitto_rr: request and response' request_and_response
done

version=v5
check 'properties: all of PUBLISH are forwarded' properties
check 'properties: of a will are forwarded' will_properties
check 'will: sent on DISCONNECT with reason 0x04' disconnect_with_will
check 'topic alias: set once, then used with an empty topic' topic_alias
check 'subscription identifier comes with the message' subscription_identifier
check 'shared subscription: each message to one member, every member gets some' shared_subscription
check 'reason codes: no matching subscribers' no_matching_subscribers

until [ $(($(date +%s) - started_s)) -gt "$silence_s" ]; do sleep 0.1; done
for version in v31 v311 v5; do
    number=100
    check "keep-alive: 5 s, and still connected after $silence_s s of silence" stays_connected
done
while read -r leftover; do kill -KILL "$leftover"; done <"$base/keep-alive-pids" 2>/dev/null
exit "$failed"
