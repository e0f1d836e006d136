//! What Mosquitto has and midge has not: why a line is refused, or passed over with a warning. Every keyword of Mosquitto 2.1 is
//! here or in the table of options.

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Refused until it can be done: a listener with TLS must not become a plain one, nor a bridge vanish.
    Later,
    /// Refused for good.
    Never,
    /// Accepted with a warning: nothing depends on it.
    Warn,
}

pub struct Foreign {
    pub name: &'static str,
    pub plan: Plan,
    /// A sentence about what it is for, or what holds instead.
    pub why: &'static str,
}

impl Foreign {
    /// By a keyword of a file; `plugin_opt_*` and `auth_opt_*` stand for all that begin so.
    pub fn of_keyword(keyword: &str) -> Option<&'static Foreign> {
        FOREIGN.iter().find(|it| match it.name.strip_suffix('*') {
            Some(prefix) => keyword.starts_with(prefix),
            None => it.name == keyword,
        })
    }

    /// What is said of it, under the name it was given.
    pub fn text(&self, name: &str) -> String {
        match self.plan {
            Plan::Later => format!("{name} is not in this version: {}", self.why),
            Plan::Never => format!("{name} is not supported: {}", self.why),
            Plan::Warn => format!("{name} is passed over: {}", self.why),
        }
    }
}

const TLS: &str = "there is no TLS yet, and a listener that asks for it must not be opened in plain text.";
const BRIDGE: &str = "there are no bridges yet.";
const PLUGIN: &str = "plugins are libraries of C, which are not loaded; password_file and acl_file may do instead.";
const PSK: &str = "TLS with pre-shared keys is not planned; certificates are.";
const ENGINE: &str = "engines of OpenSSL are not used.";
const PROXY: &str = "the PROXY protocol is not understood yet, and ignoring it would break every connection.";
const BUFFER: &str =
    "read buffers are shared by all connections, and requests of WebSockets have a limit of their own.";

const fn later(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, plan: Plan::Later, why }
}

const fn never(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, plan: Plan::Never, why }
}

const fn warn(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, plan: Plan::Warn, why }
}

pub static FOREIGN: &[Foreign] = &[
    later("cafile", TLS),
    later("capath", TLS),
    later("certfile", TLS),
    later("keyfile", TLS),
    later("ciphers", TLS),
    later("ciphers_tls1.3", TLS),
    later("crlfile", TLS),
    later("disable_client_cert_date_checks", TLS),
    later("require_certificate", TLS),
    later("tls_version", TLS),
    later("use_identity_as_username", TLS),
    later("use_subject_as_username", TLS),
    later("enable_proxy_protocol", PROXY),
    later("proxy_protocol_v2_require_tls", PROXY),
    later("websockets_origin", "the origin of a web page is not checked yet, and must not seem to be."),
    later("connection", BRIDGE),
    later("address", BRIDGE),
    later("addresses", BRIDGE),
    later("topic", BRIDGE),
    later("bridge_attempt_unsubscribe", BRIDGE),
    later("bridge_bind_address", BRIDGE),
    later("bridge_max_packet_size", BRIDGE),
    later("bridge_max_topic_alias", BRIDGE),
    later("bridge_outgoing_retain", BRIDGE),
    later("bridge_protocol_version", BRIDGE),
    later("bridge_receive_maximum", BRIDGE),
    later("bridge_reload_type", BRIDGE),
    later("bridge_session_expiry_interval", BRIDGE),
    later("bridge_tcp_keepalive", BRIDGE),
    later("bridge_tcp_user_timeout", BRIDGE),
    later("cleansession", BRIDGE),
    later("local_cleansession", BRIDGE),
    later("idle_timeout", BRIDGE),
    later("keepalive_interval", BRIDGE),
    later("local_clientid", BRIDGE),
    later("local_username", BRIDGE),
    later("local_password", BRIDGE),
    later("notifications", BRIDGE),
    later("notifications_local_only", BRIDGE),
    later("notification_topic", BRIDGE),
    later("remote_clientid", BRIDGE),
    later("clientid", BRIDGE),
    later("remote_username", BRIDGE),
    later("username", BRIDGE),
    later("remote_password", BRIDGE),
    later("password", BRIDGE),
    later("restart_timeout", BRIDGE),
    later("round_robin", BRIDGE),
    later("start_type", BRIDGE),
    later("threshold", BRIDGE),
    later("try_private", BRIDGE),
    later("bridge_alpn", BRIDGE),
    later("bridge_cafile", BRIDGE),
    later("bridge_capath", BRIDGE),
    later("bridge_certfile", BRIDGE),
    later("bridge_keyfile", BRIDGE),
    later("bridge_ciphers", BRIDGE),
    later("bridge_ciphers_tls1.3", BRIDGE),
    later("bridge_insecure", BRIDGE),
    later("bridge_tls_use_os_certs", BRIDGE),
    later("bridge_tls_version", BRIDGE),
    never("bridge_require_ocsp", "stapled OCSP answers are not checked."),
    never("bridge_identity", PSK),
    never("bridge_psk", PSK),
    never("psk_file", PSK),
    never("psk_hint", PSK),
    never("tls_engine", ENGINE),
    never("tls_engine_kpass_sha1", ENGINE),
    never("tls_keyform", ENGINE),
    never("plugin", PLUGIN),
    never("auth_plugin", PLUGIN),
    never("global_plugin", PLUGIN),
    never("plugin_load", PLUGIN),
    never("plugin_use", PLUGIN),
    never("plugin_opt_*", PLUGIN),
    never("auth_plugin_deny_special_chars", PLUGIN),
    never("auth_opt_*", PLUGIN),
    warn("dhparamfile", "Mosquitto itself does not use it any more."),
    warn("enable_control_api", "it lists plugins, and there are none."),
    warn("http_dir", "no files are served over HTTP."),
    warn("packet_buffer_size", BUFFER),
    warn("websockets_headers_size", BUFFER),
    warn("websockets_log_level", "WebSockets have no log of their own."),
    warn("store_clean_interval", "what is no longer needed is removed at once, as in Mosquitto since 2.0."),
];
