# Completion of midge's options in bash. Made from the table of options.
_midge() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    [ "$COMP_CWORD" -gt 1 ] && case ${COMP_WORDS[1]} in
        ctl) case $before in
            retained) COMPREPLY=($(compgen -W 'delete' -- "$word")) ;;
            session) COMPREPLY=($(compgen -W 'delete' -- "$word")) ;;
            log) COMPREPLY=($(compgen -W 'none error warning notice information debug subscribe unsubscribe all' -- "$word")) ;;
            *) COMPREPLY=($(compgen -f -W 'clients sessions subscriptions retained kick session log stats reload top --socket --config-file --json --now --payload --interval --help' -- "$word")) ;;
            esac
            return ;;
        passwd) case $before in
            *) COMPREPLY=($(compgen -f -W '--create --batch --delete --upgrade --hash --iterations --help' -- "$word")) ;;
            esac
            return ;;
    esac
    case $before in
        --listener) COMPREPLY=() ;;
        --port|-p) COMPREPLY=() ;;
        --bind-interface) COMPREPLY=() ;;
        --socket-domain) COMPREPLY=($(compgen -W 'ipv4 ipv6' -- "$word")) ;;
        --socket-mode) COMPREPLY=() ;;
        --socket-owner) COMPREPLY=() ;;
        --protocol) COMPREPLY=($(compgen -W 'mqtt websockets' -- "$word")) ;;
        --accept-protocol-versions) COMPREPLY=() ;;
        --mount-point) COMPREPLY=() ;;
        --max-connections) COMPREPLY=() ;;
        --set-tcp-nodelay) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --global-max-connections) COMPREPLY=() ;;
        --max-connections-per-address) COMPREPLY=() ;;
        --max-connect-rate) COMPREPLY=() ;;
        --connect-timeout) COMPREPLY=() ;;
        --global-max-clients) COMPREPLY=() ;;
        --max-subscriptions) COMPREPLY=() ;;
        --persistent-client-expiration) COMPREPLY=() ;;
        --allow-anonymous) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --listener-allow-anonymous) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --password-file) COMPREPLY=($(compgen -f -- "$word")) ;;
        --allow-plain-text-passwords) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --acl-file) COMPREPLY=($(compgen -f -- "$word")) ;;
        --check-retain-source) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --allow-zero-length-clientid) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --auto-id-prefix) COMPREPLY=() ;;
        --listener-auto-id-prefix) COMPREPLY=() ;;
        --use-username-as-clientid) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --clientid-prefixes) COMPREPLY=() ;;
        --max-keepalive) COMPREPLY=() ;;
        --max-inflight-messages) COMPREPLY=() ;;
        --max-inflight-bytes) COMPREPLY=() ;;
        --max-queued-messages) COMPREPLY=() ;;
        --max-queued-bytes) COMPREPLY=() ;;
        --queue-policy) COMPREPLY=($(compgen -W 'drop_oldest drop_newest reject' -- "$word")) ;;
        --queue-qos0-messages) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --stall-timeout) COMPREPLY=() ;;
        --retry-interval) COMPREPLY=() ;;
        --max-packet-size) COMPREPLY=() ;;
        --message-size-limit) COMPREPLY=() ;;
        --max-publish-rate) COMPREPLY=() ;;
        --max-publish-bytes-rate) COMPREPLY=() ;;
        --max-topic-length) COMPREPLY=() ;;
        --max-topic-levels) COMPREPLY=() ;;
        --max-retained-messages) COMPREPLY=() ;;
        --max-retained-bytes) COMPREPLY=() ;;
        --max-qos|--maximum-qos) COMPREPLY=($(compgen -W '0 1 2' -- "$word")) ;;
        --retain-available) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --retain-expiry-interval) COMPREPLY=() ;;
        --allow-duplicate-messages) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --upgrade-outgoing-qos) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --max-topic-alias) COMPREPLY=() ;;
        --max-topic-alias-broker) COMPREPLY=() ;;
        --persistence|--retained-persistence) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --persistence-location) COMPREPLY=($(compgen -d -- "$word")) ;;
        --persistence-sync) COMPREPLY=() ;;
        --persistence-file) COMPREPLY=() ;;
        --autosave-interval) COMPREPLY=() ;;
        --autosave-on-changes) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --memory-limit) COMPREPLY=() ;;
        --sys-interval) COMPREPLY=() ;;
        --log-dest) COMPREPLY=() ;;
        --log-type) COMPREPLY=($(compgen -W 'error warning notice information debug subscribe unsubscribe all none websockets internal' -- "$word")) ;;
        --log-timestamp) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --log-timestamp-format) COMPREPLY=() ;;
        --log-facility) COMPREPLY=() ;;
        --connection-messages) COMPREPLY=($(compgen -W 'true false' -- "$word")) ;;
        --config-file|-c) COMPREPLY=($(compgen -f -- "$word")) ;;
        --explain-config) COMPREPLY=($(compgen -f -- "$word")) ;;
        --user) COMPREPLY=() ;;
        --pid-file) COMPREPLY=($(compgen -f -- "$word")) ;;
        --control-socket) COMPREPLY=($(compgen -f -- "$word")) ;;
        *) COMPREPLY=($(compgen -W 'ctl passwd --listener --port --bind-interface --socket-domain --socket-mode --socket-owner --protocol --accept-protocol-versions --mount-point --max-connections --set-tcp-nodelay --global-max-connections --max-connections-per-address --max-connect-rate --connect-timeout --global-max-clients --max-subscriptions --persistent-client-expiration --allow-anonymous --listener-allow-anonymous --password-file --allow-plain-text-passwords --acl-file --check-retain-source --allow-zero-length-clientid --auto-id-prefix --listener-auto-id-prefix --use-username-as-clientid --clientid-prefixes --max-keepalive --max-inflight-messages --max-inflight-bytes --max-queued-messages --max-queued-bytes --queue-policy --queue-qos0-messages --stall-timeout --retry-interval --max-packet-size --message-size-limit --max-publish-rate --max-publish-bytes-rate --max-topic-length --max-topic-levels --max-retained-messages --max-retained-bytes --max-qos --maximum-qos --retain-available --retain-expiry-interval --allow-duplicate-messages --upgrade-outgoing-qos --max-topic-alias --max-topic-alias-broker --persistence --retained-persistence --persistence-location --persistence-sync --persistence-file --autosave-interval --autosave-on-changes --memory-limit --sys-interval --log-dest --log-type --log-timestamp --log-timestamp-format --log-facility --connection-messages --verbose --quiet --config-file --test-config --explain-config --daemon --user --pid-file --control-socket --help --version' -- "$word")) ;;
    esac
}
complete -F _midge midge
