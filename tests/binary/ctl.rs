//! `midge ctl` and the control socket.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use midge::codec::{QoS, Version};

use crate::client::{Client, hello};
use crate::folder::Folder;
use crate::program::{Midge, fail, port};

const BASE: &str = "listener 0 127.0.0.1\nallow_anonymous true\n";

/// A broker with a control socket in a directory of its own.
struct Site {
    folder: Folder,
    midge: Midge,
    port: u16,
}

impl Site {
    fn new(name: &str) -> Site {
        let folder = Folder::new(name);
        let file = folder.write("m.conf", &format!("{BASE}control_socket {{}}/sock\n"));
        let midge = Midge::start(&["-c", &file], None);
        let port = port(&midge.start_lines(), "ipv4").unwrap();
        Site { folder, midge, port }
    }

    fn socket(&self) -> String {
        self.folder.path("sock").to_str().unwrap().to_string()
    }

    fn ctl(&self, words: &[&str]) -> Output {
        ctl(&self.socket(), words)
    }

    /// What it prints, if all is well.
    fn told(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it is refused with.
    fn refused(&self, words: &[&str]) -> String {
        refusal(&self.ctl(words), 1)
    }

    fn client(&self, id: &str) -> Client {
        Client::connect(self.port, Version::V5, id, false)
    }

    fn retain(&self, client: &mut Client, topic: &str, payload: &[u8]) {
        let retain = true;
        let (dup, qos, packet_id, properties) = (false, QoS::AtMostOnce, 0, midge::codec::Properties::EMPTY);
        let publish = midge::codec::Publish { dup, qos, retain, topic, packet_id, properties, payload };
        client.send(&midge::codec::Packet::Publish(publish));
    }
}

fn ctl_command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_midge"));
    command.arg("ctl").args(words).stdin(Stdio::null());
    command
}

fn ctl(socket: &str, words: &[&str]) -> Output {
    ctl_command(&[&["--socket", socket], words].concat()).output().unwrap()
}

/// The sentences on standard error of a command that ended with this code.
fn refusal(output: &Output, code: i32) -> String {
    assert!(output.stdout.is_empty() && output.status.code() == Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_socket_is_its_users_alone_and_goes_with_the_broker() {
    let site = Site::new("ctl-file");
    let found = fs::symlink_metadata(site.socket()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    // Another one leaves it alone.
    let (code, lines) = fail(&["-p", "0", "--control-socket", &site.socket()]);
    let pid = site.midge.pid();
    // An emulator's name, if the program runs in one.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let told = format!("Error: Address already in use: {} is held by {} (pid {pid}).", site.socket(), name.trim_end());
    assert_eq!((code, lines.last().unwrap()), (1, &told));
    site.told(&["stats"]);
    let Site { folder, midge, .. } = site;
    assert_eq!(midge.stop("TERM").0.code(), Some(0));
    assert!(!folder.path("sock").exists());
}

#[test]
fn the_socket_of_a_dead_broker_is_replaced_and_other_files_are_not() {
    let folder = Folder::new("ctl-stale");
    let path = folder.path("sock");
    let socket = path.to_str().unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let told = refusal(&ctl(socket, &["stats"]), 1);
    assert_eq!(
        told,
        format!(
            "Error: Nobody answers at {socket}, a control socket of a broker that is gone: start it with --control-socket {socket}.\n"
        )
    );
    let midge = Midge::start(&["-p", "0", "--control-socket", socket], None);
    midge.start_lines();
    assert!(ctl(socket, &["stats"]).status.success());
    drop(midge);
    let file = folder.write("file", "precious");
    let (code, lines) = fail(&["-p", "0", "--control-socket", &file]);
    let told = format!("Error: Cannot listen on {file}: a file that is no socket is there, and is left alone.");
    assert_eq!((code, lines.last().unwrap()), (1, &told));
    let long = format!("/{}", "x".repeat(107));
    let (code, lines) = fail(&["--control-socket", &long]);
    let told = format!("Error: Invalid value '{long}' for --control-socket: expected a text of 1 to 107 bytes.");
    assert_eq!((code, lines), (3, vec![told]));
}

#[test]
fn who_asks_wrongly_or_nobody_is_told_what_to_do() {
    let folder = Folder::new("ctl-errors");
    let path = folder.path("none");
    let socket = path.to_str().unwrap();
    let told = refusal(&ctl(socket, &["stats"]), 1);
    let expected = format!(
        "Error: There is no control socket at {socket}: start the broker with --control-socket {socket}, or name its own with --socket.\n"
    );
    assert_eq!(told, expected);
    let told = refusal(&ctl(socket, &["client"]), 3);
    assert_eq!(told, "Error: There is no command 'client'; the nearest is 'clients'.\n");
    let told = refusal(&ctl(socket, &["log", "verbose"]), 3);
    assert!(told.starts_with("Error: There is no log type 'verbose'; the nearest is '"), "{told}");
    let told = refusal(&ctl_command(&["-c", &folder.write("m.conf", BASE), "stats"]).output().unwrap(), 1);
    assert!(told.ends_with("m.conf has no line with control_socket: the broker makes none.\n"), "{told}");
    let output = ctl_command(&["--help"]).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"Usage: midge ctl [OPTION]... COMMAND\n"));
    // Whoever listens there may be no broker.
    let listener = UnixListener::bind(&path).unwrap();
    let asked =
        ctl_command(&["--socket", socket, "stats"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"220 mail ready\n").unwrap();
    let told = refusal(&asked.wait_with_output().unwrap(), 1);
    assert_eq!(told, format!("Error: Whoever answers at {socket} is no broker of this version.\n"));
}

#[test]
fn clients_sessions_and_subscriptions_are_shown_to_people_and_to_programs() {
    let site = Site::new("ctl-lists");
    let mut lamp = site.client("lamp \"1\"\x7f");
    lamp.subscribe("house/+", 1);
    lamp.publish("t", b"x", QoS::AtMostOnce, 0);
    lamp.ping();
    let table = site.told(&["clients", "--now"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].starts_with("ID              ADDRESS          USER  VERSION  SINCE"), "{table}");
    assert!(lines[1].starts_with("lamp \"1\"\\u{7f}  127.0.0.1:"), "{table}");
    assert!(lines[1].contains("  -     5.0         ") && lines[1].contains("  1m00s     1      0 "), "{table}");
    let json = site.told(&["clients", "--json", "--now"]);
    assert!(json.starts_with("{\"id\":\"lamp \\\"1\\\"\\u007f\",\"address\":\"127.0.0.1:"), "{json}");
    let rest = ",\"keep_alive\":60,\"subscriptions\":1,\"queue\":0,\"queue_bytes\":0,\"unwritten\":0,\"in_flight\":0,\
                \"received\":1,\"sent\":0,\"dropped\":0,\"also_used_by\":\"\"}\n";
    assert!(json.ends_with(rest), "{json}");
    let json = site.told(&["--json", "clients"]);
    assert!(json.contains("\"received\":1,\"sent\":0,\"received_per_s\":0.0,\"sent_per_s\":0.0,\"dropped\""), "{json}");
    let json = site.told(&["sessions", "--json"]);
    let expected = "{\"id\":\"lamp \\\"1\\\"\\u007f\",\"state\":\"connected\",\"user\":\"\",\"expiry\":0,\"away\":null,\
                    \"ends_in\":null,\"subscriptions\":1,\"queue\":0,\"queue_bytes\":0,\"in_flight\":0}\n";
    assert_eq!(json, expected);
    for words in [&["subscriptions"][..], &["subscriptions", "lamp \"1\"\x7f"]] {
        let table = site.told(words);
        let expected = "ID              FILTER   QOS  OPTIONS  SUB-ID  SHARE\n\
                        lamp \"1\"\\u{7f}  house/+    1  -             -  -\n";
        assert_eq!(table, expected);
    }
    let told = site.refused(&["subscriptions", "radio"]);
    assert_eq!(told, "Error: There is no client 'radio', connected or away.\n");
    // The configuration file names the socket.
    let file = site.folder.path("m.conf");
    let output = ctl_command(&["-c", file.to_str().unwrap(), "sessions"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn retained_messages_are_listed_and_deleted() {
    let site = Site::new("ctl-retained");
    let mut client = site.client("c");
    for (topic, payload) in [("a/1", &b"on"[..]), ("a/2", b"\xff\x00"), ("b", &[b'x'; 5000])] {
        site.retain(&mut client, topic, payload);
    }
    client.ping();
    assert_eq!(
        site.told(&["retained"]),
        "TOPIC  SIZE  QOS  EXPIRES\na/1       2    0        -\na/2       2    0        -\nb      4.8k    0        -\n"
    );
    let json = site.told(&["retained", "a/#", "--payload", "--json"]);
    let expected = "{\"topic\":\"a/1\",\"size\":2,\"qos\":0,\"expires_in\":null,\"payload\":\"on\"}\n\
                    {\"topic\":\"a/2\",\"size\":2,\"qos\":0,\"expires_in\":null,\"payload\":\"\u{fffd}\\u0000\"}\n";
    assert_eq!(json, expected);
    assert_eq!(site.told(&["retained", "delete", "a/+"]), "2 retained messages were deleted.\n");
    assert_eq!(site.told(&["--json", "retained", "delete", "b"]), "{\"ok\":\"1 retained message was deleted.\"}\n");
    assert_eq!(site.told(&["retained"]), "TOPIC  SIZE  QOS  EXPIRES\n");
    let line = site.midge.line_with("Control: pid ");
    assert!(line.starts_with("Control: pid ") && line.ends_with(" deletes the retained messages of 'a/+'."), "{line}");
}

#[test]
fn clients_are_disconnected_and_sessions_deleted() {
    let site = Site::new("ctl-orders");
    let mut lamp = site.client("lamp");
    assert_eq!(site.told(&["kick", "lamp"]), "Client 'lamp' was disconnected.\n");
    let line = site.midge.line_with("Control: ");
    assert!(
        line.starts_with("Control: by order of pid ") && line.ends_with(": Client 'lamp' was disconnected."),
        "{line}"
    );
    let farewell = lamp.next(|packet| format!("{packet:?}")).unwrap();
    assert!(farewell.contains("AdministrativeAction"), "{farewell}");
    assert!(lamp.next(|_| ()).is_none());
    assert_eq!(site.refused(&["kick", "lamp"]), "Error: There is no client 'lamp', connected or away.\n");
    let connect = midge::codec::Connect { session_expiry_s: 100, ..hello(Version::V5, "radio", None) };
    let (mut radio, _) = Client::greet(site.port, &connect);
    radio.ping();
    assert_eq!(site.told(&["session", "delete", "radio"]), "The session of client 'radio' was deleted.\n");
    assert_eq!(site.told(&["sessions", "--json"]), "");
}

#[test]
fn what_is_logged_changes_until_the_next_reload() {
    let site = Site::new("ctl-log");
    let mut client = site.client("c");
    site.midge.line_with("New client connected");
    site.told(&["log", "debug"]);
    client.publish("t", b"x", QoS::AtMostOnce, 0);
    let line = site.midge.line_with("Received PUBLISH");
    assert_eq!(line, "Received PUBLISH from c (d0, q0, r0, m0, 't', ... (1 bytes))");
    assert_eq!(site.told(&["reload"]), "The new configuration is in force.\n");
    site.midge.line_with("The new configuration is in force.");
    client.publish("t", b"x", QoS::AtMostOnce, 0);
    client.ping();
    site.told(&["log", "warning"]);
    assert!(site.midge.line_with("").ends_with(" sets the log types."));
    drop(site.client("d"));
    let (_, rest) = site.midge.stop("TERM");
    assert_eq!(rest, [""; 0], "notices are not written");
}

#[test]
fn where_rust_log_decides_what_is_logged_nothing_else_does() {
    let folder = Folder::new("ctl-rust-log");
    let socket = folder.path("sock").to_str().unwrap().to_string();
    let midge = Midge::start(&["-p", "0", "--control-socket", &socket], Some("info"));
    midge.start_lines();
    let told = refusal(&ctl(&socket, &["log", "debug"]), 1);
    assert_eq!(told, "Error: RUST_LOG is set where the broker was started, and decides what is logged.\n");
}

#[test]
fn a_reload_answers_with_what_was_refused_and_may_move_the_socket() {
    let site = Site::new("ctl-reload");
    site.folder.write("m.conf", &format!("{BASE}control_socket {{}}/sock\nmax_qos 7\n"));
    let told = site.refused(&["reload"]);
    assert!(told.starts_with("Error: ") && told.contains("max_qos") && told.contains("m.conf:4"), "{told}");
    site.folder.write("m.conf", &format!("{BASE}control_socket {{}}/other\n"));
    assert_eq!(site.told(&["reload"]), "The new configuration is in force.\n");
    site.midge.line_with("is in force.");
    assert!(!site.folder.path("sock").exists());
    let other = site.folder.path("other");
    assert!(ctl(other.to_str().unwrap(), &["stats"]).status.success());
    // What cannot be opened leaves everything as it was.
    site.folder.write("m.conf", &format!("{BASE}control_socket {{}}/none/sock\n"));
    let told = refusal(&ctl(other.to_str().unwrap(), &["reload"]), 1);
    assert!(told.starts_with("Error: Cannot listen on ") && told.contains("/none/sock: "), "{told}");
    // A file that somebody removed is made anew.
    site.folder.write("m.conf", &format!("{BASE}control_socket {{}}/other\n"));
    fs::remove_file(&other).unwrap();
    site.midge.signal("HUP");
    site.midge.line_with("is in force.");
    assert!(ctl(other.to_str().unwrap(), &["stats"]).status.success());
    site.folder.write("m.conf", BASE);
    assert!(ctl(other.to_str().unwrap(), &["reload"]).status.success());
    assert!(!other.exists());
}

#[test]
fn the_counters_are_told() {
    let site = Site::new("ctl-stats");
    site.client("c").ping();
    let json = site.told(&["stats", "--json"]);
    for line in [
        "{\"name\":\"clients/total\",\"value\":",
        "{\"name\":\"heap/current\",\"value\":",
        "{\"name\":\"uptime\",\"value\":",
    ] {
        assert!(json.lines().any(|it| it.starts_with(line)), "{json}");
    }
    assert!(site.told(&["stats"]).starts_with("NAME  "));
}

#[test]
fn top_goes_on_picture_after_picture() {
    let site = Site::new("ctl-top");
    let _client = site.client("lamp");
    let mut top = ctl_command(&["--socket", &site.socket(), "top", "--interval", "1"]);
    let mut child = top.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for picture in 0..2 {
        let line = lines.next().unwrap();
        assert!(line.starts_with("midge up ") && line.contains(", clients 1, away 0,"), "{line}");
        let line = lines.next().unwrap();
        assert_eq!(line.starts_with("messages/s in -, out -"), picture == 0, "{line}");
        let line = lines.find(|line| line.starts_with("lamp ")).unwrap();
        assert!(line.ends_with(|letter: char| letter.is_ascii_digit()) && line.contains("127.0.0.1:"), "{line}");
        assert_eq!(lines.next().unwrap(), "");
    }
    // When the broker is gone, so is it.
    site.midge.signal("KILL");
    let gone = lines.last();
    assert!(gone.is_none_or(|line| line.is_empty() || line.contains("lamp")));
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn who_does_not_read_holds_nobody_up_and_costs_nothing() {
    let site = Site::new("ctl-deaf");
    let mut client = site.client("c");
    let long = "x".repeat(200);
    for number in 0..4000 {
        site.retain(&mut client, &format!("{long}/{number}"), b"1");
    }
    client.ping();
    let mut deaf: Vec<UnixStream> = (0..7).map(|_| UnixStream::connect(site.socket()).unwrap()).collect();
    deaf.iter_mut().for_each(|stream| stream.write_all(b"retained\t#\n").unwrap());
    // The last place serves the others, who may come in any number.
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let mut command = ctl_command(&["--socket", &site.socket(), "retained", "+/1", "--json"]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in asked {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.ends_with(b"\"expires_in\":null}\n"));
    }
    client.ping();
    assert!(sleeps(site.midge.pid()), "it wakes though nobody reads");
    // What they are told is complete, when they come round to reading it.
    let mut text = String::new();
    deaf[0].read_to_string(&mut text).unwrap();
    assert_eq!((text.lines().count(), text.lines().last()), (4002, Some("ok")));
    drop(deaf);
    site.told(&["stats"]);
    assert!(sleeps(site.midge.pid()), "it wakes though nobody calls");
}

/// Whether there is a second in which the process does not wake up.
fn sleeps(pid: u32) -> bool {
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    let mut before = switches();
    (0..6).any(|_| {
        std::thread::sleep(Duration::from_secs(1));
        let now = switches();
        std::mem::replace(&mut before, now) == now
    })
}

#[test]
fn programs_that_quarrel_over_an_id_are_named_in_the_log() {
    let site = Site::new("ctl-rivals");
    // All of them stay, as far as they are let.
    let _clients: Vec<Client> = (0..4).map(|_| site.client("x")).collect();
    let line = site.midge.line_with("Warning: client");
    assert!(line.starts_with("Warning: client 'x' connected anew 3 times in "), "{line}");
    assert!(line.contains(" s from 127.0.0.1 while it was connected: either two programs there use this id"), "{line}");
}

/// Both ends of a pseudo-terminal with 10 lines of 60 columns.
pub fn terminal() -> (File, File) {
    // SAFETY: posix_openpt takes no pointers, and nobody else owns the descriptor it gives; the others take that, and ptsname_r
    // a buffer with its length; winsize is what the kernel reads for TIOCSWINSZ.
    let (near, path) = unsafe {
        let near = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        assert!(near >= 0 && libc::grantpt(near) == 0 && libc::unlockpt(near) == 0);
        let mut path = [0u8; 64];
        assert_eq!(libc::ptsname_r(near, path.as_mut_ptr().cast(), path.len()), 0);
        let size = libc::winsize { ws_row: 10, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
        assert_eq!(libc::ioctl(near, libc::TIOCSWINSZ, &raw const size), 0);
        (
            File::from(OwnedFd::from_raw_fd(near)),
            CStr::from_bytes_until_nul(&path).unwrap().to_str().unwrap().to_string(),
        )
    };
    let far = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap();
    (near, far)
}

/// Its flags: whether it echoes, waits for whole lines, and makes signals of keys.
pub fn mode(terminal: &File) -> libc::tcflag_t {
    // SAFETY: termios is plain data for which all zeros is a valid value, and tcgetattr fills it.
    unsafe {
        let mut mode: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut mode), 0);
        mode.c_lflag
    }
}

#[test]
fn top_leaves_the_terminal_as_it_was() {
    let site = Site::new("ctl-screen");
    let _client = site.client("lamp");
    for end in ["q", "\x03", "TERM"] {
        let (mut near, far) = terminal();
        let before = mode(&far);
        let stdio = || Stdio::from(far.try_clone().unwrap());
        let mut top = ctl_command(&["--socket", &site.socket(), "top", "--interval", "3600"]);
        let mut child = top.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        // The last of a picture: nothing below it.
        let picture = read_until(&mut near, "\x1b[J");
        let lines: Vec<&str> = picture.split("\x1b[K").collect();
        assert!(lines[0].starts_with("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[Hmidge up "), "{lines:?}");
        assert!(lines.iter().any(|line| line.trim_start().starts_with("lamp  ")), "{lines:?}");
        assert_ne!(mode(&far), before);
        match end {
            "TERM" => {
                let kill = format!("kill -TERM {}", child.id());
                assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            }
            key => near.write_all(key.as_bytes()).unwrap(),
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{end:?}");
        assert_eq!(mode(&far), before);
        read_until(&mut near, "\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

#[test]
fn top_ends_with_a_key_though_the_broker_does_not_answer() {
    let folder = Folder::new("ctl-stuck");
    let path = folder.path("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (mut near, far) = terminal();
    let before = mode(&far);
    let stdio = || Stdio::from(far.try_clone().unwrap());
    let mut top = ctl_command(&["--socket", path.to_str().unwrap(), "top"]);
    let mut child = top.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
    for answer in ["columns\tname:text\tvalue:count\nok\n", "columns\tid:text\nok\n"] {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    }
    read_until(&mut near, "\x1b[J");
    let _unanswered = listener.accept().unwrap();
    let begun = Instant::now();
    near.write_all(b"q").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(mode(&far), before);
}

/// What is read from a terminal up to this.
pub fn read_until(terminal: &mut File, end: &str) -> String {
    let (mut seen, mut bytes) = (String::new(), [0; 4096]);
    while !seen.contains(end) {
        let count = terminal.read(&mut bytes).unwrap();
        seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    seen
}
