//! Configuration files as they are found: each starts unchanged and does what it says.

use std::fs;

use midge::codec::{QoS, Version};

use crate::client::{Client, hello};
use crate::folder::Folder;
use crate::program::{Midge, bare, command, fail, port, run};

const USAGE: i32 = 3;

/// The ports of IPv4 in the order of the listeners.
fn ports(lines: &[String]) -> Vec<u16> {
    let port =
        |line: &String| line.strip_prefix("Opening ipv4 listen socket on port ")?.strip_suffix('.')?.parse().ok();
    lines.iter().filter_map(port).collect()
}

/// Debian's mosquitto.conf, with a file of its owner's in conf.d; ports are free ones.
#[test]
fn debians_file_starts_unchanged() {
    let folder = Folder::new("debian");
    fs::create_dir(folder.path("conf.d")).unwrap();
    folder.write("conf.d/README", "Any files placed in this directory that have a .conf ending will be loaded.\n");
    folder.write("conf.d/local.conf", "listener 0 127.0.0.1\nallow_anonymous true\n");
    let file = folder.write(
        "mosquitto.conf",
        "# Place your local configuration in /etc/mosquitto/conf.d/\n#\n# A full description of the configuration file is at\n\
         # /usr/share/doc/mosquitto/examples/mosquitto.conf\n\npid_file {}/mosquitto.pid\n\npersistence true\n\
         persistence_location {}/\n\nlog_dest file {}/mosquitto.log\n\ninclude_dir {}/conf.d\n",
    );
    let midge = Midge::start(&["-c", &file, "--log-dest", "stderr", "--log-dest", &folder.dest("mosquitto.log")], None);
    let lines = midge.start_lines();
    assert!(lines.contains(&format!("Config loaded from {file}.")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("Warning")), "{lines:#?}");
    let mut client = Client::connect(ports(&lines)[0], Version::V311, "c", false);
    client.ping();
    assert_eq!(folder.read("mosquitto.pid"), midge.pid().to_string());
    assert!(folder.read("mosquitto.log").contains(" as c (p4, c1, k60)."));
    assert!(folder.path("midge.lock").exists());
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
    assert!(!folder.path("mosquitto.pid").exists());
}

/// As Home Assistant's add-on writes it, where logins and certificates are left out.
#[test]
fn a_file_of_home_assistants_kind_starts_unchanged() {
    let folder = Folder::new("ha");
    fs::create_dir(folder.path("share")).unwrap();
    folder.write("share/extra.conf", "max_inflight_messages 5\n");
    let file = folder.write(
        "mosquitto.conf",
        "##\n## /etc/mosquitto/mosquitto.conf\n##\n\nuser root\nlog_dest stderr\nlog_type error\nlog_type warning\n\
         log_type notice\nlog_type information\npersistence true\npersistence_location {}/\n\n# Limits\n\
         max_queued_messages 8192\n\nallow_anonymous true\n\ninclude_dir {}/share\n\nlistener 0 127.0.0.1\nprotocol mqtt\n\n\
         listener 0 127.0.0.1\nprotocol websockets\n",
    );
    let midge = Midge::start(&["-c", &file], None);
    let lines = midge.start_lines();
    let mqtt = port(&lines, "ipv4").unwrap();
    assert!(port(&lines, "websockets").is_some(), "{lines:#?}");
    let (_, connack) = Client::greet(mqtt, &hello(Version::V5, "ha", None));
    assert!(connack.contains("ReceiveMaximum(5)"), "{connack}");
}

/// As OpenWrt's init script makes it of /etc/config/mosquitto: options of all sections in their order.
#[test]
fn a_file_generated_by_openwrt_starts_unchanged() {
    let folder = Folder::new("openwrt");
    let file = folder.write(
        "mosquitto.generated.conf",
        "# mosquitto.conf file generated from UCI config\nlog_dest stderr\nlog_dest topic\nper_listener_settings false\n\
         allow_anonymous true\nallow_duplicate_messages false\nconnection_messages true\nlog_timestamp true\n\
         log_type error\nlog_type notice\nlog_type information\nlog_type warning\nmax_inflight_bytes 0\nmax_inflight_messages 20\n\
         max_queued_bytes 0\nmax_queued_messages 1000\nmessage_size_limit 10\nqueue_qos0_messages false\nretain_available true\n\
         set_tcp_nodelay true\nsys_interval 10\nupgrade_outgoing_qos false\nuser root\nwebsockets_log_level 0\n\
         websockets_headers_size 1024\npersistent_client_expiration 14d\nautosave_interval 1800\nautosave_on_changes false\n\
         persistence true\npersistence_file mosquitto.db\nstore_clean_interval 10\npersistence_location {}\n\
         listener 0 127.0.0.1\nmax_connections 2\nmax_qos 1\nmount_point lan/\nprotocol mqtt\nsocket_domain ipv4\n\
         use_username_as_clientid false\n",
    );
    let midge = Midge::start(&["-c", &file], None);
    let lines = midge.start_lines();
    let warnings: Vec<&String> = lines.iter().filter(|line| line.starts_with("Warning")).collect();
    for (warning, keyword) in
        warnings.iter().zip(["websockets_log_level", "websockets_headers_size", "store_clean_interval"])
    {
        assert!(warning.starts_with(&format!("Warning: {keyword} is passed over: ")), "{warning}");
        assert!(warning.contains(&format!("({file}:")), "{warning}");
    }
    assert_eq!(warnings.len(), 3, "{lines:#?}");
    let port = ports(&lines)[0];
    assert!(folder.path("mosquitto.db.midge/midge.lock").exists());
    // The mount point is the listener's, and nobody sees it; nor messages that are too long.
    let mut client = Client::connect(port, Version::V311, "c", false);
    client.subscribe("t", 0);
    client.publish("t", b"far too long", QoS::AtMostOnce, 0);
    client.publish("t", b"short", QoS::AtMostOnce, 0);
    assert_eq!(client.next_payload(), b"short");
    let second = Client::connect(port, Version::V311, "d", false);
    let denied = "Client connection from 127.0.0.1 denied: max_connections exceeded.";
    let _third = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(midge.line_with("denied").starts_with(denied));
    drop(second);
}

#[test]
fn what_is_wrong_with_a_file_is_one_line_and_nothing_is_written() {
    let folder = Folder::new("wrong");
    for (text, why) in [
        (
            "persistence true\npersistence_location {}/store\nlisener 1883\n",
            "Unknown configuration variable 'lisener'; the nearest is 'listener'. Error found at {}/m.conf:3.",
        ),
        (
            "listener 0\ncertfile /c.pem\n",
            "certfile is not in this version: there is no TLS yet, and a listener that asks for it must not be opened in plain text. Error found at {}/m.conf:2.",
        ),
        (
            "sys_interval -1\npersistence maybe\n",
            "Invalid value '-1' for sys_interval: expected a number from 1 to 65535, or 0 for no such topics. Error found at {}/m.conf:1. There is more that is wrong, 2 in all: --test-config shows it.",
        ),
    ] {
        let file = folder.write("m.conf", text);
        let why = why.replace("{}", folder.path("").to_str().unwrap().trim_end_matches('/'));
        let why = why.replace("There is more that is wrong, 2 in all", "There is more that is wrong, 1 in all");
        assert_eq!(fail(&["-c", &file]), (USAGE, vec![format!("Error: {why}")]));
        assert!(!folder.path("store").exists());
    }
    let missing = format!("{}/none.conf", folder.path("").display());
    let (code, lines) = fail(&["-c", &missing]);
    assert_eq!(code, USAGE);
    assert!(lines[0].starts_with("Error: The configuration file ") && lines[0].contains("none.conf cannot be read: "));
}

#[test]
fn a_configuration_is_tested_without_a_trace() {
    let folder = Folder::new("test");
    let good = folder.write(
        "good.conf",
        "listener 0 127.0.0.1\npersistence true\npersistence_location {}/store\nlog_dest file {}/log\npid_file {}/pid\nhttp_dir /www\n",
    );
    let output = run(&["-c", &good, "--test-config"], None);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"Configuration file is OK.\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("Warning: http_dir is passed over: ") && stderr.lines().count() == 1, "{stderr}");
    for name in ["store", "log", "pid"] {
        assert!(!folder.path(name).exists(), "{name}");
    }
    let bad = folder.write("bad.conf", "x 1\nsys_interval x\n");
    let (code, lines) = fail(&["-c", &bad, "--test-config"]);
    assert_eq!((code, lines.len()), (USAGE, 2), "{lines:#?}");
    assert!(lines[0].ends_with("bad.conf:1.") && lines[1].ends_with("bad.conf:2."), "{lines:#?}");
    // An address that no machine can have.
    let nowhere = folder.write("nowhere.conf", "listener 1883 999.1.1.1\n");
    let (code, lines) = fail(&["-c", &nowhere, "--test-config"]);
    assert_eq!((code, lines.len()), (USAGE, 1), "{lines:#?}");
    assert!(lines[0].contains("999.1.1.1"), "{lines:#?}");
    // A directory that init scripts make.
    let pid = folder.write("pid.conf", "pid_file {}/none/pid\n");
    let output = run(&["-c", &pid, "--test-config"], None);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("/none/pid: there is no directory "));
    for (wrong, why) in [
        ("log_dest file {}/none/log", "/none/log: there is no directory "),
        ("persistence true\npersistence_location {}/none/store", "/none/store: there is no directory "),
        ("listener 0 {}/s\nsocket_owner nobody-has-this-name", "there is no user 'nobody-has-this-name'"),
        ("listener 0 127.0.0.1\nsocket_domain ipv6", "127.0.0.1 has no address of its socket_domain"),
        ("listener 0\nbind_interface a/b", "expected the name of a network interface"),
    ] {
        let file = folder.write("wrong.conf", &format!("{wrong}\n"));
        let (code, lines) = fail(&["-c", &file, "--test-config"]);
        assert_eq!((code, lines.len()), (USAGE, 1), "{wrong}: {lines:#?}");
        assert!(lines[0].starts_with("Error: ") && lines[0].contains(why), "{lines:#?}");
    }
}

#[test]
fn a_file_is_explained_and_the_code_says_whether_it_would_do() {
    let folder = Folder::new("explain");
    let good = folder.write("good.conf", "# mine\nlistener 1883\nallow_anonymous true\n");
    let output = run(&["--explain-config", &good], None);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("good.conf:2: listener 1883\n    done: "), "{text}");
    assert!(
        text.ends_with("Listening on port 1883 of all addresses: clients without a user name are let in.\n"),
        "{text}"
    );
    let bad = folder.write("bad.conf", "listener 1883\nconnection uplink\naddress 192.0.2.1\n");
    let output = run(&["--explain-config", &bad], None);
    assert_eq!(output.status.code(), Some(USAGE));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("REFUSED").count(), 2, "{text}");
}

#[test]
fn the_environment_says_where_things_are_kept_and_for_whom() {
    let folder = Folder::new("environment");
    let file = folder.write("m.conf", "listener 0 127.0.0.1\npersistence true\npersistence_location {}/nowhere/else\n");
    let mut command = command(&["-c", &file], None);
    command.env("MOSQUITTO_PERSISTENCE_LOCATION", folder.path("here")).env("UMASK_SET", "077");
    let midge = Midge::follow(command.stderr(std::process::Stdio::piped()).spawn().unwrap());
    midge.start_lines();
    assert!(folder.path("here/midge.lock").exists());
    let mut wrong = crate::program::command(&["-p", "0"], None);
    let output = wrong.env("UMASK_SET", "rw").output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(String::from_utf8(output.stderr).unwrap().contains("UMASK_SET"));
}

/// A file with these lines, served.
fn served(name: &str, text: &str) -> (Folder, Midge, Vec<String>) {
    let folder = Folder::new(name);
    let midge = Midge::start(&["-c", &folder.write("m.conf", text)], None);
    let lines = midge.start_lines();
    (folder, midge, lines)
}

#[test]
fn port_and_bind_address_are_a_listener_said_the_old_way() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!("port {free}\nbind_address 127.0.0.1\nallow_anonymous true\nmaximum_qos 1\n");
    let (_folder, _midge, lines) = served("old", &text);
    assert_eq!(ports(&lines), [free]);
    let (_, connack) = Client::greet(free, &hello(Version::V5, "c", None));
    assert!(connack.contains("MaximumQoS(1)"), "{connack}");
}

#[test]
fn each_listener_lets_in_whom_it_says_and_names_them() {
    let text = "per_listener_settings true\nlistener 0 127.0.0.1\nallow_anonymous true\nauto_id_prefix one-\n\
                listener 0 127.0.0.1\nlistener_allow_anonymous true\nlistener_auto_id_prefix two-\nlistener 0 127.0.0.1\n";
    let (_folder, _midge, lines) = served("each", text);
    let ports = ports(&lines);
    for (port, expected) in
        ports.iter().zip(["AssignedClientIdentifier(\"one-", "AssignedClientIdentifier(\"two-", "NotAuthorized"])
    {
        let (_, connack) = Client::greet(*port, &hello(Version::V5, "", None));
        assert!(connack.contains(expected), "{connack}");
    }
}

#[test]
fn connections_have_a_limit_over_all_listeners() {
    let text = "global_max_connections 1\nallow_anonymous true\nlistener 0 127.0.0.1\nlistener 0 127.0.0.1\n";
    let (_folder, midge, lines) = served("connections", text);
    let ports = ports(&lines);
    let mut client = Client::connect(ports[0], Version::V311, "c", false);
    let _refused = std::net::TcpStream::connect(("127.0.0.1", ports[1])).unwrap();
    assert!(
        midge.line_with("denied").starts_with("Client connection from 127.0.0.1 denied: max_connections exceeded.")
    );
    client.ping();
}

#[test]
fn the_old_name_of_persistence_stores_as_the_new_one_does() {
    let text = "retained_persistence true\npersistence_location {}\nlistener 0 127.0.0.1\nallow_anonymous true\n";
    let (folder, _midge, _) = served("retained", text);
    assert!(folder.path("midge.lock").exists());
}

/// Whom the kernel says a process runs as.
fn uid(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn root_becomes_the_user_it_is_told_and_opens_its_log_file_then() {
    use std::os::unix::fs::MetadataExt;
    if uid(std::process::id()) != 0 {
        println!("Not root: nothing to give up.");
        return;
    }
    let folder = Folder::new("user");
    let to_nobody = std::process::Command::new("chown").arg("nobody").arg(folder.path("")).status().unwrap();
    assert!(to_nobody.success());
    let text = "user nobody\nlistener 0 127.0.0.1\nlog_dest stderr\nlog_dest file {}/log\n";
    let file = folder.write("m.conf", text);
    // Not the harness's flags, which say that root stays root.
    let mut command = bare();
    let command = command.args(["-c", &file]).env_remove("RUST_LOG").stderr(std::process::Stdio::piped());
    let midge = Midge::follow(command.spawn().unwrap());
    midge.start_lines();
    let nobody = uid(midge.pid());
    assert_ne!(nobody, 0);
    assert_eq!(fs::metadata(folder.path("log")).unwrap().uid(), nobody);
    let unknown = folder.write("unknown.conf", "user nobody-has-this-name\n");
    let output = bare().args(["-c", &unknown]).output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("nobody-has-this-name"));
}

#[test]
fn in_the_background_it_serves_when_the_command_ends_and_a_failure_is_the_commands() {
    let folder = Folder::new("daemon");
    let file =
        folder.write("m.conf", "listener 0 127.0.0.1\nallow_anonymous true\npid_file {}/pid\nlog_dest file {}/log\n");
    let output = run(&["-c", &file, "-d"], None);
    assert!(output.status.success(), "{output:?}");
    let log = folder.read("log");
    let port =
        log.lines().find_map(|line| line.split_once("socket on port ")?.1.strip_suffix('.')?.parse().ok()).unwrap();
    Client::connect(port, Version::V311, "c", false).ping();
    let pid: u32 = folder.read("pid").parse().unwrap();
    assert!(std::process::Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = holder.local_addr().unwrap().port().to_string();
    let (code, lines) = fail(&["-p", &busy, "-d"]);
    assert_eq!(code, 1);
    assert!(lines.last().unwrap().starts_with("Error: Address already in use: "), "{lines:#?}");
}
