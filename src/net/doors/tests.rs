use std::net::{TcpListener, TcpStream};

use super::look::FOLLOW_UPS;
use super::plan::FREE_PORT_ATTEMPTS;
use super::*;
use crate::config::Domain;
use crate::net::{Inherited, socket};

fn named(port: u16, host: &str) -> ListenerConfig {
    ListenerConfig::new(port, Host::Named(host.to_string()))
}

fn open_all(configs: &[ListenerConfig]) -> Doors {
    open(configs, Inherited::default()).unwrap()
}

fn addresses(doors: &Doors) -> Vec<SocketAddr> {
    let place = |(_, door): (_, &Door)| match door.listener.place() {
        Place::Tcp(address) => *address,
        Place::Unix(path) => panic!("{path:?}"),
    };
    doors.doors.iter().map(place).collect()
}

fn reload(doors: &mut Doors, configs: &[ListenerConfig]) -> Result<(), OpenError> {
    let plan = doors.plan(configs)?;
    doors.commit(plan);
    while let Some(number) = doors.leaving() {
        doors.close(number);
    }
    Ok(())
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Nobody listens there any more; a process that another test just started may hold a copy of the socket until it is another
/// program.
fn is_refused(address: SocketAddr) -> bool {
    (0..100_000).any(|_| {
        std::thread::yield_now();
        TcpStream::connect(address).is_err()
    })
}

/// Accepts whatever waits; says how many were let in.
fn admit(doors: &mut Doors) -> Vec<ListenerId> {
    let mut entered = Vec::new();
    for number in 0..doors.numbers_end() {
        while doors.is_ready(number, Millis(0)) {
            if let Accept::Peer(..) = doors.accept(number)
                && !doors.is_full(number)
            {
                entered.push(doors.enter(number));
            }
        }
    }
    entered
}

#[test]
fn both_families_share_a_free_port() {
    for host in [Host::Loopback, Host::All] {
        let doors = open_all(&[ListenerConfig::new(0, host.clone()), ListenerConfig::new(0, host)]);
        let addresses = addresses(&doors);
        let each = if has_ipv6() { 2 } else { 1 };
        assert_eq!(addresses.len(), 2 * each);
        for (index, address) in addresses.iter().enumerate() {
            assert_eq!(address.port(), addresses[index / each * each].port());
            assert_eq!(address.is_ipv4(), index % each == 0);
        }
        assert_ne!(addresses[0].port(), addresses[each].port());
    }
}

#[test]
fn an_absent_address_is_waited_for_and_the_others_are_served() {
    // An address for documentation: no machine has it.
    let mut doors = open_all(&[named(1883, "203.0.113.1"), named(0, "127.0.0.1")]);
    assert_eq!(addresses(&doors).len(), 1);
    let waiting = &doors.listeners[0];
    assert!(waiting.is_waiting);
    assert_eq!(
        waiting.told.as_deref(),
        Some("Cannot assign requested address: 203.0.113.1 port 1883 (no interface has it).")
    );
    // Without word from the kernel there is no time at which it would wake up.
    let poll = mio::Poll::new().unwrap();
    doors.register(poll.registry(), 0).unwrap();
    while doors.has_work() && doors.is_due {
        doors.turn(Millis(0));
    }
    assert!(doors.deadline().is_none() || doors.has_no_watch);
    reload(&mut doors, &[named(0, "127.0.0.1")]).unwrap();
    doors.turn(Millis(1));
    assert!(doors.watch.is_none() && doors.deadline().is_none());
    assert_eq!(addresses(&doors).len(), 1);
}

#[test]
fn an_address_that_came_is_served_though_the_first_word_was_early() {
    let mut doors = open_all(&[named(1883, "203.0.113.1")]);
    doors.turn(Millis(0));
    assert!(addresses(&doors).is_empty());
    // As if that had been this machine's address all along.
    doors.listeners[0].config = named(0, "127.0.0.1");
    doors.listeners[0].port = 0;
    (doors.news_at, doors.follow_ups) = (Millis(1000), &FOLLOW_UPS);
    doors.plan_next_look(Millis(1000));
    let at = doors.deadline().unwrap();
    assert!(at <= Millis(1500), "{at:?}");
    doors.turn(at);
    assert_eq!(addresses(&doors)[0].ip(), IpAddr::from([127, 0, 0, 1]));
    assert_eq!(addresses(&doors)[0].port(), doors.listeners[0].port);
    assert_eq!(doors.deadline(), None);
    assert!(!doors.listeners[0].is_waiting && doors.listeners[0].told.is_none());
}

#[test]
fn a_busy_port_is_told_with_its_holder() {
    let doors = open_all(&[named(0, "127.0.0.1")]);
    let port = addresses(&doors)[0].port();
    let error = open(&[named(port, "127.0.0.1")], Inherited::default()).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("Address already in use: 127.0.0.1 port {port} is held by another listener of this broker.")
    );
    let holder = Some(crate::os::Holder { pid: 1, name: "init".to_string() });
    let busy = OpenError::Busy { place: Place::Tcp(addresses(&doors)[0]), holder };
    assert!(busy.to_string().ends_with("is held by init (pid 1)."));
}

#[test]
fn what_comes_and_is_busy_is_told_and_tried_again() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let mut doors = open_all(&[named(1883, "203.0.113.1")]);
    doors.listeners[0].config = named(port, "127.0.0.1");
    doors.listeners[0].port = port;
    doors.turn(Millis(0));
    assert!(doors.listeners[0].told.as_deref().unwrap().starts_with("Address already in use"));
    drop(other);
    // As in `is_refused`.
    while addresses(&doors).is_empty() {
        doors.turn(doors.deadline().unwrap());
        std::thread::yield_now();
    }
}

#[test]
fn a_name_is_asked_for_again_without_waiting() {
    let mut doors = open_all(&[named(0, "a..b")]);
    assert!(doors.listeners[0].told.as_deref().unwrap().starts_with("Cannot resolve the listener's host a..b: "));
    doors.turn(Millis(0));
    let at = doors.deadline().unwrap();
    assert!(at <= Millis(1000));
    doors.listeners[0].config = named(0, "localhost");
    doors.turn(at);
    let mut poll = mio::Poll::new().unwrap();
    doors.register(poll.registry(), 7).unwrap();
    let mut events = mio::Events::with_capacity(8);
    while !events.iter().any(|event| event.token() == Token(7 + LOOKUPS)) {
        poll.poll(&mut events, None).unwrap();
    }
    doors.note(LOOKUPS);
    doors.turn(at);
    assert!(!addresses(&doors).is_empty());
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let mut doors = open_all(&[named(0, "127.0.0.1"), named(0, "127.0.0.2")]);
    let before = addresses(&doors);
    let _waiting = TcpStream::connect(before[0]).unwrap();
    let mut first = named(0, "127.0.0.1");
    first.max_connections = 1;
    first.rules.allow_anonymous = true;
    first.protocol = Protocol::WebSockets;
    reload(&mut doors, &[first, named(0, "127.0.0.3")]).unwrap();
    let after = addresses(&doors);
    assert_eq!(after[0], before[0]);
    assert!(!after.contains(&before[1]) && after.len() == 2);
    assert!(is_refused(before[1]));
    // Who waited at a socket that stays is served, by the new rules.
    assert_eq!(admit(&mut doors).len(), 1);
    assert!(doors.rules(0).allow_anonymous && doors.is_full(0));
    assert_eq!(doors.listeners[0].config.protocol, Protocol::WebSockets);
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = other.local_addr().unwrap().port();
    let mut doors = open_all(&[named(0, "127.0.0.1")]);
    let before = addresses(&doors);
    let mut changed = named(0, "127.0.0.1");
    changed.max_connections = 1;
    let error = reload(&mut doors, &[changed, named(0, "127.0.0.2"), named(busy, "127.0.0.1")]).unwrap_err();
    assert!(error.to_string().starts_with("Address already in use"), "{error}");
    assert_eq!(addresses(&doors), before);
    assert_eq!(doors.listeners[0].config.max_connections, 0);
    let _client = TcpStream::connect(before[0]).unwrap();
    assert_eq!(admit(&mut doors), [0]);
}

#[test]
fn a_listener_moves_between_one_address_and_all_without_a_gap() {
    // The port that is free on one address may be taken on another.
    let moved = (0..FREE_PORT_ATTEMPTS).find_map(|_| {
        let mut doors = open_all(&[named(0, "127.0.0.1")]);
        let port = addresses(&doors)[0].port();
        let all = ListenerConfig { domain: Some(Domain::Ipv4), ..ListenerConfig::new(port, Host::All) };
        let is_moved = reload(&mut doors, std::slice::from_ref(&all)).is_ok();
        is_moved.then_some((doors, port, all))
    });
    let (mut doors, port, all) = moved.expect("its own old socket is in the way");
    assert_eq!(addresses(&doors), [SocketAddr::from(([0, 0, 0, 0], port))]);
    TcpStream::connect(("127.0.0.2", port)).unwrap();
    reload(&mut doors, &[named(port, "127.0.0.1")]).unwrap();
    assert_eq!(addresses(&doors), [SocketAddr::from(([127, 0, 0, 1], port))]);
    assert!(is_refused(([127, 0, 0, 2], port).into()));
    // The port is nobody else's.
    let error = socket::tcp(([0, 0, 0, 0], port).into(), false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    // The same listener twice is an error, and leaves what was.
    assert!(reload(&mut doors, &[all.clone(), all]).is_err());
    assert_eq!(addresses(&doors), [SocketAddr::from(([127, 0, 0, 1], port))]);
}

#[test]
fn connections_outlive_their_listener_and_count_for_it_alone() {
    let mut config = named(0, "127.0.0.1");
    config.max_connections = 2;
    let mut doors = open_all(std::slice::from_ref(&config));
    let address = addresses(&doors)[0];
    let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    let entered = admit(&mut doors);
    assert_eq!(entered.len(), 2);
    reload(&mut doors, &[]).unwrap();
    assert!(addresses(&doors).is_empty());
    assert_eq!(doors.listeners.len(), 1);
    // Its number is not given to another listener while its connections live.
    reload(&mut doors, &[config]).unwrap();
    assert!(!entered.contains(&doors.doors[0].owner));
    assert!(!doors.is_full(0));
    entered.into_iter().for_each(|id| doors.leave(id));
    assert_eq!(doors.listeners.len(), 1);
    drop(clients);
}

#[test]
fn a_socket_that_was_passed_on_is_used_where_it_fits() {
    let sockets = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| TcpListener::bind(address).unwrap());
    let address = sockets[0].local_addr().unwrap();
    let listeners = sockets.map(|socket| {
        socket.set_nonblocking(true).unwrap();
        Listener::inherited(socket.into()).unwrap()
    });
    let inherited = Inherited { listeners: listeners.into(), warnings: Vec::new() };
    let mut doors = open(&[named(address.port(), "127.0.0.1")], inherited).unwrap();
    assert_eq!(addresses(&doors), [address]);
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(admit(&mut doors).len(), 1);
}

#[test]
fn a_unix_socket_stays_moves_and_goes() {
    let path = |name: &str| std::env::temp_dir().join(format!("midge-doors-{name}-{}", std::process::id()));
    let (one, other) = (path("one"), path("other"));
    let config = |path: &std::path::Path| ListenerConfig::new(0, Host::Unix(path.to_path_buf()));
    let mut doors = open_all(&[config(&one)]);
    let _client = std::os::unix::net::UnixStream::connect(&one).unwrap();
    let private = ListenerConfig { socket_mode: Some(0o600), ..config(&one) };
    reload(&mut doors, &[private]).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&one).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(admit(&mut doors).len(), 1);
    let unowned = ListenerConfig { socket_owner: Some("nobody-here".to_string()), ..config(&one) };
    assert!(reload(&mut doors, &[unowned]).is_err());
    assert!(reload(&mut doors, &[config(&other), config(&std::env::temp_dir())]).is_err());
    assert!(one.exists() && !other.exists());
    reload(&mut doors, &[config(&other)]).unwrap();
    assert!(!one.exists() && other.exists());
    std::os::unix::net::UnixStream::connect(&other).unwrap();
    drop(doors);
    assert!(!other.exists());
}

#[test]
fn who_waits_at_a_socket_that_goes_is_let_in() {
    let mut doors = open_all(&[named(0, "127.0.0.1")]);
    let address = addresses(&doors)[0];
    let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let plan = doors.plan(&[named(0, "127.0.0.2")]).unwrap();
    doors.commit(plan);
    let number = doors.leaving().unwrap();
    assert!(doors.has_work());
    for _ in 0..2 {
        assert!(matches!(doors.accept(number), Accept::Peer(..)));
        assert!(!doors.is_full(number));
        assert_eq!(doors.enter(number), 0);
    }
    assert!(matches!(doors.accept(number), Accept::WouldBlock));
    doors.close(number);
    assert!(doors.leaving().is_none() && is_refused(address));
    // The listener is there as long as its connections.
    [0, 0].into_iter().for_each(|id| doors.leave(id));
    assert!(!doors.listeners.contains(0));
}

#[test]
fn a_reload_knows_what_a_name_of_this_machine_stands_for() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = other.local_addr().unwrap().port();
    let mut doors = open_all(&[named(0, "127.0.0.1")]);
    let before = addresses(&doors);
    let error = reload(&mut doors, &[named(busy, "localhost")]).unwrap_err();
    assert!(error.to_string().starts_with("Address already in use"), "{error}");
    // The socket of the address is the one of the name.
    let _client = TcpStream::connect(before[0]).unwrap();
    reload(&mut doors, &[named(before[0].port(), "localhost")]).unwrap();
    assert!(addresses(&doors).contains(&before[0]));
    assert_eq!(admit(&mut doors).len(), 1);
}

/// A listener on 127.0.0.1 was replaced by one of the same port, whose name, `host`, is being looked up.
fn replaced_by_name(host: &str) -> (Doors, SocketAddr) {
    let mut doors = open_all(&[named(0, "127.0.0.1")]);
    let address = addresses(&doors)[0];
    reload(&mut doors, &[named(0, "127.0.0.1"), named(address.port(), "a..b")]).unwrap();
    doors.listeners[1].config = named(address.port(), host);
    doors.listeners[1].lookup = Some(Lookup::start(host).unwrap());
    reload(&mut doors, &[named(address.port(), host)]).unwrap();
    assert_eq!(addresses(&doors), [address]);
    assert!(doors.listeners[1].is_provisional && doors.leaving().is_none());
    let mut poll = mio::Poll::new().unwrap();
    doors.register(poll.registry(), 0).unwrap();
    let mut events = mio::Events::with_capacity(8);
    while !events.iter().any(|event| event.token() == Token(LOOKUPS)) {
        poll.poll(&mut events, None).unwrap();
    }
    doors.note(LOOKUPS);
    doors.turn(Millis(0));
    assert!(!doors.listeners[1].is_provisional);
    (doors, address)
}

#[test]
fn a_socket_stays_until_it_is_known_what_a_name_stands_for() {
    let (doors, address) = replaced_by_name("localhost");
    assert!(doors.leaving().is_none() && addresses(&doors).contains(&address));
    let (mut doors, address) = replaced_by_name("a..b");
    let number = doors.leaving().unwrap();
    doors.close(number);
    assert!(addresses(&doors).is_empty() && is_refused(address));
}

#[test]
fn clients_of_a_listener_that_is_gone_are_judged_by_who_has_its_port_or_by_all() {
    let with = |port, host, is_open| {
        let mut config = named(port, host);
        config.rules.allow_anonymous = is_open;
        config.rules.max_topic_alias = 5;
        config
    };
    let mut doors = open_all(&[named(0, "127.0.0.1"), with(0, "127.0.0.2", true)]);
    let port = addresses(&doors)[1].port();
    let _client = TcpStream::connect(addresses(&doors)[1]).unwrap();
    let id = admit(&mut doors)[0];
    let mut is_open = |configs: &[ListenerConfig]| {
        reload(&mut doors, configs).unwrap();
        assert_eq!(doors.rules_of(id).unwrap().max_topic_alias, 5);
        doors.rules_of(id).unwrap().allow_anonymous
    };
    // Nobody says anything.
    assert!(is_open(&[]));
    // All that there are do not agree.
    assert!(is_open(&[with(0, "127.0.0.3", true), with(0, "127.0.0.4", false)]));
    // The port has another listener.
    assert!(!is_open(&[with(0, "127.0.0.3", true), with(port, "127.0.0.4", false)]));
    assert!(is_open(&[with(0, "127.0.0.3", true), with(0, "127.0.0.4", true)]));
    assert!(!is_open(&[named(0, "127.0.0.3")]));
}

#[test]
fn a_plan_that_is_dropped_leaves_the_file_of_a_unix_socket_as_it_was() {
    let path = std::env::temp_dir().join(format!("midge-doors-plan-{}", std::process::id()));
    let mode = || std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777;
    let config = |mode| ListenerConfig { socket_mode: Some(mode), ..ListenerConfig::new(0, Host::Unix(path.clone())) };
    let mut doors = open_all(&[config(0o640)]);
    let plan = doors.plan(&[config(0o666)]).unwrap();
    assert_eq!(mode(), 0o666);
    drop(plan);
    assert_eq!(mode(), 0o640);
    reload(&mut doors, &[config(0o666)]).unwrap();
    assert_eq!(mode(), 0o666);
}

#[test]
fn without_word_from_the_kernel_addresses_are_looked_for() {
    let mut doors = open_all(&[named(1883, "203.0.113.1")]);
    doors.has_no_watch = true;
    doors.turn(Millis(5000));
    assert_eq!(doors.deadline(), Some(Millis(5500)));
    let unwatched = ListenerConfig { interface: Some("lo".to_string()), ..named(0, "127.0.0.1") };
    reload(&mut doors, &[unwatched]).unwrap();
    doors.turn(Millis(5600));
    assert_eq!(doors.deadline(), Some(Millis(15_600)));
}

#[test]
fn a_machine_without_ipv6_is_no_trouble() {
    let lacks =
        |code| OpenError::Bind { address: "[::1]:0".parse().unwrap(), error: io::Error::from_raw_os_error(code) };
    assert_eq!(lacks(libc::EAFNOSUPPORT).weight(true), Level::Debug);
    assert_eq!(lacks(libc::EADDRNOTAVAIL).weight(true), Level::Debug);
    assert_eq!(lacks(libc::EADDRNOTAVAIL).weight(false), Level::Warn);
    assert_eq!(lacks(libc::EACCES).weight(true), Level::Error);
    assert!(lacks(libc::EADDRNOTAVAIL).may_pass() && !lacks(libc::EAFNOSUPPORT).may_pass());
}

#[test]
fn an_interface_that_is_not_there_is_waited_for() {
    let config = ListenerConfig { interface: Some("none-such0".to_string()), ..named(0, "127.0.0.1") };
    let mut doors = open_all(std::slice::from_ref(&config));
    assert_eq!(doors.listeners[0].told.as_deref(), Some("There is no interface none-such0."));
    let on_lo = ListenerConfig { interface: Some("lo".to_string()), ..config };
    reload(&mut doors, &[on_lo]).unwrap();
    assert_eq!(addresses(&doors).len(), 1);
    assert_eq!(doors.listeners[0].told, None);
}
