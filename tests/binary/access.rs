//! Password and access control files as the program reads them: at start, for --test-config, and again on SIGHUP.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use midge::codec::{Connect, Packet, QoS, Version};

use crate::client::{Client, hello};
use crate::folder::Folder;
use crate::passwd::run_passwd;
use crate::program::{Midge, fail, port, run};

const USAGE: i32 = 3;

/// `correct horse`, as the tools of Mosquitto hash it.
const USERS: &str = "# all forms\n\
    sha:$6$AAECAwQFBgcICQoL$5W8GCQ9GLgmhmQvoa8jmRaPnsh82mRigdSv6mQsK0sMIII/WznlQb1g+RWddfoAKTMzBJP1deJU+Rp/1QZ0zZg==\n\
    sha64:$6$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$29QtyxbW0Qth2GH5GN0ihmagtB/755oiG+oG0UjEg6L9UK/JDvWsZp5ejiy5IkbcHEawwhh/SPu9ZHDfEL2J9A==\n\
    pb:$7$101$AAECAwQFBgcICQoL$lp0Cm29zl+CI/RXyXDKvLye7OxM3OuE6RMzgXTX/f3imS/pFh2Ur7yarLDpKRUKpB0tOj6l0UrRv41zqxmD4tg==\n\
    pb64:$7$1000$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$53KiEygVzVVEVUVTe4h79yMtYp0OxxoKFip82vf7OCrEbcm4/E88oGkCyN0NhQ7fLOSBIpiITuELG/0ldDPFMQ==\n\
    dave:correct horse\n";
const NAMES: [&str; 5] = ["sha", "sha64", "pb", "pb64", "dave"];

/// A configuration with both files, in a directory that goes with the test.
struct Files(Folder);

impl Files {
    fn new(name: &str, users: &str, rights: &str) -> Files {
        let files = Files(Folder::new(&format!("access-{name}")));
        files.write("passwd", users);
        files.write("acl", rights);
        let (passwd, acl, store) = (files.path("passwd"), files.path("acl"), files.path("store"));
        let plain = "allow_plain_text_passwords true";
        let listener = format!("listener 0 127.0.0.1\npassword_file {passwd}\n{plain}\nacl_file {acl}\n");
        // What is stored has a thread of its own beside that of logins.
        files.write("midge.conf", &format!("{listener}persistence true\npersistence_location {store}\n"));
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name).display().to_string()
    }

    /// For its owner alone.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path(name), text).unwrap();
        fs::set_permissions(self.0.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path(name)).unwrap();
    }

    /// The broker, its port, and what it said when it started.
    fn start(&self) -> (Midge, u16, Vec<String>) {
        let midge = Midge::start(&["-c", &self.path("midge.conf")], None);
        let lines = midge.start_lines();
        let port = port(&lines, "ipv4").unwrap();
        (midge, port, lines)
    }

    /// The exit code of --test-config, and what it complains about.
    fn test(&self) -> (i32, Vec<String>) {
        let output = run(&["-c", &self.path("midge.conf"), "--test-config"], None);
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), stderr.lines().map(str::to_string).collect())
    }
}

fn greet(port: u16, name: &str, password: &str) -> (Client, bool) {
    let (username, password) = (Some(name), Some(password.as_bytes()));
    let (client, connack) = Client::greet(port, &Connect { username, password, ..hello(Version::V5, name, None) });
    assert!(connack.contains("reason: Success") || connack.contains("reason: NotAuthorized"), "{connack}");
    (client, connack.contains("Success"))
}

#[test]
fn users_of_every_form_log_in_and_do_what_they_may() {
    let files = Files::new("forms", USERS, "topic news\npattern readwrite users/%u/#\n");
    assert_eq!(files.test(), (0, vec![]));
    let (midge, port, lines) = files.start();
    assert!(!lines.iter().any(|line| line.contains("Every client will be refused")), "{lines:#?}");
    for name in NAMES {
        let (mut client, is_in) = greet(port, name, "correct horse");
        assert!(is_in, "{name}");
        client.subscribe("#", 0);
        client.publish("news", b"denied", QoS::AtMostOnce, 0);
        client.publish(&format!("users/{name}/x"), b"own", QoS::AtMostOnce, 0);
        assert_eq!(client.next_payload(), b"own");
        assert!(!greet(port, name, "correct horsf").1, "{name}");
        let line = midge.line_with("disconnected: not authorised");
        assert!(line.starts_with("Client 127.0.0.1 [127.0.0.1:"), "{line}");
        assert!(
            line.contains("disconnected: not authorised. Unknown user or wrong password. It calls itself '"),
            "{line}"
        );
    }
    let (_, connack) = Client::greet(port, &hello(Version::V311, "anonymous", None));
    assert!(connack.contains("reason: NotAuthorized"), "{connack}");
}

#[test]
fn a_wrong_line_of_users_is_left_out_and_told() {
    let files = Files::new("left-out", &format!("{USERS}x:$6$broken\n"), "topic #\n");
    let fault = format!("Error: {}:7: user \"x\": the hash is cut off or too long.", files.path("passwd"));
    assert_eq!(files.test(), (USAGE, vec![fault.clone()]));
    let (_midge, port, lines) = files.start();
    assert!(lines.contains(&format!("{fault} The line is left out.")), "{lines:#?}");
    assert!(greet(port, "dave", "correct horse").1 && !greet(port, "x", "x").1);
}

#[test]
fn plain_text_is_left_out_and_refused_by_a_reload_unless_it_is_allowed() {
    let files = Files::new("plain", USERS, "topic #\n");
    let allowing = fs::read_to_string(files.path("midge.conf")).unwrap();
    let plain = allowing.replace("allow_plain_text_passwords true", "allow_plain_text_passwords false");
    files.write("midge.conf", &plain);
    let fault = format!(
        "Error: {}:6: user \"dave\": the password is plain text, which is read only with allow_plain_text_passwords true; midge \
         passwd -U FILE hashes it.",
        files.path("passwd")
    );
    assert_eq!(files.test(), (USAGE, vec![fault.clone()]));
    let (midge, port, lines) = files.start();
    assert!(lines.contains(&format!("{fault} The line is left out.")), "{lines:#?}");
    assert!(greet(port, "pb", "correct horse").1 && !greet(port, "dave", "correct horse").1);
    let reload = |line: &str| {
        midge.signal("HUP");
        midge.line_with(line)
    };
    assert_eq!(reload("Error: "), fault);
    files.write("midge.conf", &allowing);
    reload("The new configuration is in force.");
    assert!(greet(port, "dave", "correct horse").1);
    // What the sentence says helps.
    files.write("midge.conf", &plain);
    assert!(run_passwd(&["-U", &files.path("passwd")], "").status.success());
    reload("The new configuration is in force.");
    assert!(greet(port, "dave", "correct horse").1);
}

/// Two listeners that read one file, of which one takes plain text.
#[test]
fn plain_text_is_a_matter_of_the_listener_if_all_of_that_is() {
    let files = Files::new("per-listener", "dave:correct horse\nx:\n", "topic #\n");
    let passwd = files.path("passwd");
    let listener = format!("listener 0 127.0.0.1\npassword_file {passwd}\n");
    let text = format!("per_listener_settings true\n{listener}allow_plain_text_passwords true\n{listener}");
    files.write("midge.conf", &text);
    let (_midge, open, lines) = files.start();
    let ports: Vec<u16> = lines.iter().filter_map(|line| port(std::slice::from_ref(line), "ipv4")).collect();
    assert!(
        ports[0] == open && greet(ports[0], "dave", "correct horse").1 && !greet(ports[1], "dave", "correct horse").1
    );
    let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    assert_eq!((count("hash is missing"), count("plain text")), (1, 1), "{lines:#?}");
}

#[test]
fn an_expensive_hash_is_left_out_with_the_way_to_make_it_again() {
    let hash = "$argon2id$v=19$m=47104,t=1,p=1$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw$aVo1St5PsxylF7NjjIPOOE5jxNbeUNweT/LEl8ONyxYqiqflWO7BotCdzcmTPqR4fg0oMZSzDQFY9PDfbH+biw";
    let files = Files::new("expensive", &format!("ar:{hash}\n"), "topic #\n");
    let (code, lines) = files.test();
    let way_out = "midge passwd FILE USER hashes the password anew.";
    assert!(code == USAGE && lines.len() == 1 && lines[0].ends_with(way_out), "{lines:#?}");
    assert!(run_passwd(&[&files.path("passwd"), "ar"], "correct horse\n").status.success());
    assert_eq!(files.test(), (0, vec![]));
    let (_midge, port, _) = files.start();
    assert!(greet(port, "ar", "correct horse").1);
}

#[test]
fn a_wrong_rule_ends_the_start() {
    let files = Files::new("wrong-rule", USERS, "topic a\ntopics b\n");
    let fault = format!("Error: {}:2: \"topics\" is unknown; the nearest is topic.", files.path("acl"));
    assert_eq!(files.test(), (USAGE, vec![fault.clone()]));
    let (code, lines) = fail(&["-c", &files.path("midge.conf")]);
    assert_eq!((code, lines.last()), (USAGE, Some(&fault)));
}

#[test]
fn a_missing_file_ends_the_start() {
    for (name, option) in [("passwd", "password_file"), ("acl", "acl_file")] {
        let files = Files::new(&format!("missing-{name}"), USERS, "");
        files.remove(name);
        let start = format!("Error: {option} {} cannot be read: No such file", files.path(name));
        let (code, lines) = files.test();
        assert!(code == USAGE && lines.len() == 1 && lines[0].starts_with(&start), "{lines:#?}");
        let (code, lines) = fail(&["-c", &files.path("midge.conf")]);
        assert!(code == USAGE && lines.last().unwrap().starts_with(&start), "{lines:#?}");
    }
}

#[test]
fn users_that_everybody_can_read_are_worth_a_warning() {
    let files = Files::new("world", USERS, "");
    fs::set_permissions(files.0.path("passwd"), fs::Permissions::from_mode(0o644)).unwrap();
    let path = files.path("passwd");
    let warning = format!(
        "Warning: Every user of this machine can read {path}, which holds passwords or their hashes; chmod o-r {path} \
         changes that."
    );
    assert_eq!(files.test(), (0, vec![warning.clone()]));
    let (_midge, _, lines) = files.start();
    assert_eq!(lines.iter().filter(|line| **line == warning).count(), 1, "{lines:#?}");
}

#[test]
fn other_users_and_rights_are_taken_over_by_a_reload_and_broken_ones_are_not() {
    let files = Files::new("reload", USERS, "topic #\nuser dave\ntopic a\n");
    let (midge, port, _) = files.start();
    let mut dave = greet(port, "dave", "correct horse").0;
    let mut pb = greet(port, "pb", "correct horse").0;
    dave.subscribe("+", 0);
    let reload = || {
        midge.signal("HUP");
        midge.line_with("Reloading config.");
    };

    let stays = "Error: the configuration stays what it was, because of what is wrong with the new one.";
    let (passwd, acl) = (files.path("passwd"), files.path("acl"));
    let broken: [(&str, &str, String); 4] = [
        ("acl", "topic\ta\n", format!("{acl}:1: behind topic there must be a blank, not a tab.")),
        ("acl", "", format!("acl_file {acl} cannot be read: No such file or directory (os error 2).")),
        ("passwd", "dave:new\nx:\n", format!("{passwd}:2: user \"x\": the password's hash is missing.")),
        ("passwd", "", format!("password_file {passwd} cannot be read: No such file or directory (os error 2).")),
    ];
    for (name, text, fault) in broken {
        let before = fs::read_to_string(files.0.path(name)).unwrap();
        match text {
            "" => files.remove(name),
            text => files.write(name, text),
        }
        reload();
        assert_eq!(midge.line_with("Error: "), format!("Error: {fault}"));
        assert_eq!(midge.line_with("Error: "), stays);
        files.write(name, &before);
        dave.publish("a", b"still", QoS::AtMostOnce, 0);
        assert_eq!(dave.next_payload(), b"still");
    }

    // Rights change with the next message, and subscriptions stay.
    files.write("acl", "user dave\ntopic b\n");
    reload();
    dave.ping();
    dave.publish("a", b"no more", QoS::AtMostOnce, 0);
    dave.publish("b", b"now", QoS::AtMostOnce, 0);
    assert_eq!(dave.next_payload(), b"now");

    // Who is no longer a user is disconnected, others stay.
    files.write("passwd", "dave:correct horse\n");
    reload();
    assert!(midge.line_with("disconnected: not authorised.").starts_with("Client pb [127.0.0.1:"));
    let is_disconnect = pb.next(|packet| matches!(packet, Packet::Disconnect(_)));
    assert_eq!(is_disconnect, Some(true));
    assert!(!greet(port, "pb", "correct horse").1);
    dave.ping();
}

#[test]
fn a_broker_without_users_gets_some_by_a_reload() {
    let files = Files::new("added", USERS, "");
    let users = fs::read_to_string(files.path("midge.conf")).unwrap();
    files.write("midge.conf", "listener 0 127.0.0.1\n");
    let (midge, port, lines) = files.start();
    assert!(lines.iter().any(|line| line.contains("Every client will be refused")), "{lines:#?}");
    files.write("midge.conf", &users);
    midge.signal("HUP");
    midge.line_with("The new configuration is in force.");
    assert!(greet(port, "dave", "correct horse").1);
}

#[test]
fn a_reload_is_about_sessions_without_a_client_as_well() {
    let files = Files::new("absent", USERS, "user dave\ntopic a\n");
    let (midge, port, _) = files.start();
    let back = || {
        let (username, password) = (Some("dave"), Some(&b"correct horse"[..]));
        let connect = Connect { username, password, clean_start: false, ..hello(Version::V311, "away", None) };
        Client::greet(port, &Connect { session_expiry_s: u32::MAX, ..connect }).0
    };
    back().subscribe("+", 1);
    midge.line_with("connection closed by client");
    // While it is away, it may read b alone; when it is back, both.
    let reload = |rights: &str| {
        files.write("acl", &format!("user dave\ntopic {rights}\nuser pb\ntopic +\n"));
        midge.signal("HUP");
        midge.line_with("Reloading config.");
    };
    reload("b");
    let mut pb = greet(port, "pb", "correct horse").0;
    for (number, topic) in (1..).zip(["a", "b"]) {
        pb.publish(topic, topic.as_bytes(), QoS::AtLeastOnce, number);
        assert_eq!(pb.next(|packet| matches!(packet, Packet::PubAck(_))), Some(true));
    }
    reload("+");
    assert_eq!(back().next_payload(), b"b");
}
