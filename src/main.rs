//! The program: flags and file -> settings -> logger -> listeners -> no more privileges -> store -> the server's loop, and the exit
//! code.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;

use log::{Level, error, info, log_enabled, warn};
use midge::config::{Domain, Host, ListenerConfig, LogDestination};
use midge::net::{self, Control, ControlDoor, Inherited};
use midge::options::{self, Parsed, Settings, Store, UsageError};
use midge::os::{self, Counting, Daemon, DiskFiles, Notify, Owner, PidFile, Privileges, Signals, UserError};
use midge::server::{self, Server, Start};
use midge::{EXIT_FAILURE, EXIT_USAGE, VERSION, commands, logger, rights};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    match begin() {
        Ok(program) => {
            os::give_back_memory();
            program.serve()
        }
        Err(code) => code,
    }
}

/// A broker that is ready to serve.
struct Program {
    server: Box<Server>,
    daemon: Option<Daemon>,
    /// Removed when it is dropped, whatever ends the program orderly.
    _pid_file: Option<PidFile>,
}

impl Program {
    fn serve(mut self) -> ExitCode {
        let daemon = self.daemon.take();
        match self.server.run(|| daemon.map_or(Ok(()), Daemon::is_serving)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string(), EXIT_FAILURE),
        }
    }
}

/// All there is to do before a broker serves; the exit code if it is not to. A function of its own, because it needs much of the
/// stack, which is given back before the loop begins.
#[inline(never)]
fn begin() -> Result<Program, ExitCode> {
    if let Some(code) = commands::run(arguments()) {
        return Err(ExitCode::from(code));
    }
    // Before anything else has a descriptor, or there is another process.
    let inherited = net::inherited();
    let code = match options::parse(arguments(), &DiskFiles) {
        Ok(Parsed::Run(settings)) => return start(with_environment(settings), inherited),
        Ok(Parsed::TestConfig(Ok(settings))) => test(settings),
        Ok(Parsed::TestConfig(Err(error))) => {
            error.lines().iter().for_each(|line| complain(line));
            ExitCode::from(EXIT_USAGE)
        }
        Ok(Parsed::Explanation { text, is_accepted }) => {
            let _ = io::stdout().write_all(text.as_bytes());
            if is_accepted { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) }
        }
        Ok(Parsed::Help(text)) => {
            // A reader that closed the pipe has seen enough.
            let _ = io::stdout().write_all((text + &commands::list()).as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Parsed::Version(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string(), EXIT_USAGE),
    };
    Err(code)
}

/// Says what is wrong with the configuration, if anything. Nothing is opened for writing, and nothing listened on.
fn test(mut settings: Settings) -> ExitCode {
    let warn = |text: &str| {
        let _ = writeln!(io::stderr(), "Warning: {text}");
    };
    let mut told = rights::load(&mut settings.listeners);
    settings.warnings.iter().chain(&told.warnings).for_each(|text| warn(text));
    told.warnings.clear();
    let mut faults = told.faults();
    if let Err(error) = os::set_umask() {
        faults.push(error.to_string());
    }
    match os::choose_privileges(settings.startup.user.as_deref()) {
        Ok((_, remark)) => remark.iter().for_each(|text| warn(text)),
        Err(error) => faults.push(error.to_string()),
    }
    for listener in &settings.listeners {
        if let Some(Err(error)) = listener.socket_owner.as_deref().map(Owner::parse) {
            faults.push(format!("socket_owner: {error}."));
        }
        let Host::Named(host) = &listener.host else { continue };
        match (host.as_str(), listener.port).to_socket_addrs() {
            Ok(mut addresses) => {
                let is_served = |it: SocketAddr| it.is_ipv4() == (listener.domain == Some(Domain::Ipv4));
                if listener.domain.is_some() && !addresses.any(is_served) {
                    faults.push(format!("The listener's host {host} has no address of its socket_domain."));
                }
            }
            Err(error) => warn(&format!(
                "The listener's host {host} cannot be resolved now ({error}): the broker would wait for it."
            )),
        }
    }
    let log_files = settings.log.destinations.iter().filter_map(|destination| match destination {
        LogDestination::File(path) => Some(("log_dest file", path.as_path())),
        _ => None,
    });
    let store = settings.store.as_ref().map(Store::path);
    for (option, path) in log_files.chain(store.as_deref().map(|path| ("persistence_location", path))) {
        faults.extend(without_parent(option, path));
    }
    // Init scripts make these just before they start the broker.
    let made_late = [("pid_file", &settings.startup.pid_file), ("control_socket", &settings.control_socket)];
    for (option, path) in made_late {
        if let Some(told) = path.as_deref().and_then(|path| without_parent(option, path)) {
            warn(&told);
        }
    }
    if faults.is_empty() {
        let _ = writeln!(io::stdout(), "Configuration file is OK.");
        return ExitCode::SUCCESS;
    }
    faults.iter().for_each(|fault| complain(fault));
    ExitCode::from(EXIT_USAGE)
}

/// What there is to say if a file could not be made because its directory is missing.
fn without_parent(option: &str, path: &Path) -> Option<String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (!parent.is_dir()).then(|| format!("{option} {}: there is no directory {}.", path.display(), parent.display()))
}

fn complain(why: &str) {
    // Not eprintln, which panics if standard error is closed.
    let _ = writeln!(io::stderr(), "Error: {why}");
}

fn start(settings: Settings, inherited: Inherited) -> Result<Program, ExitCode> {
    os::map_large_blocks();
    if let Err(error) = os::set_umask() {
        return Err(fail(&error.to_string(), EXIT_USAGE));
    }
    let daemon = match settings.startup.daemon.then(os::daemonize).transpose() {
        Ok(daemon) => daemon,
        Err(error) => return Err(fail(&format!("It cannot go into the background: {error}."), EXIT_FAILURE)),
    };
    // Root opens no log file in what may be a directory of the user it is about to become.
    let privileges = os::choose_privileges(settings.startup.user.as_deref());
    logger::start(&settings.log, !matches!(&privileges, Ok((Privileges::NotRoot | Privileges::Stay, _))));
    info!("midge version {VERSION} starting");
    if let Some(path) = &settings.config_file {
        info!("Config loaded from {}.", path.display());
    }
    for warning in &settings.warnings {
        warn!("Warning: {warning}");
    }
    open(settings, inherited, daemon, &privileges).map_err(|(why, code)| {
        // The reason belongs into the log file, if it can be opened safely; else standard error gets the lines.
        if let Ok((Privileges::Become(user), _)) = &privileges
            && os::become_user(user).is_ok()
        {
            logger::open_files();
        }
        fail(&why, code)
    })
}

/// Everything that is needed, in the order in which it may be had: listeners while there are privileges, files without.
fn open(
    mut settings: Settings,
    inherited: Inherited,
    daemon: Option<Daemon>,
    privileges: &Result<(Privileges, Option<String>), UserError>,
) -> Result<Program, (String, u8)> {
    fn failed(error: impl ToString) -> (String, u8) {
        (error.to_string(), EXIT_FAILURE)
    }
    let of_user = |error: &UserError| (error.to_string(), if error.is_usage() { EXIT_USAGE } else { EXIT_FAILURE });
    // From here on they wait for the loop: none must end a start that is half done.
    let signals = Signals::new().map_err(failed)?;
    let (privileges, remark) = privileges.as_ref().map_err(of_user)?;
    if let Some(remark) = remark {
        warn!("Warning: {remark}");
    }
    load_rights(&mut settings)?;
    let doors = net::open(&settings.listeners, inherited).map_err(failed)?;
    if settings.local_only {
        info!(
            "Starting in local only mode: connections are accepted from this machine only. To open it up, use \
             --listener 1883 and --allow-anonymous true, which lets in everybody who reaches the port."
        );
    }
    let has_users = |listener: &ListenerConfig| listener.rules.allow_anonymous || listener.password_file.is_some();
    if !settings.listeners.iter().all(has_users) {
        warn!(
            "Every client will be refused, because nothing is configured that a client could log in with. To let \
             everybody in without login, add --allow-anonymous true."
        );
    }
    if let Privileges::Become(user) = privileges {
        doors.give_to(user);
        os::become_user(user).map_err(|error| of_user(&error))?;
        logger::open_files();
        for path in rights::unreadable(&settings.listeners) {
            warn!(
                "Warning: {} was read as root, and the user this runs as cannot read it: a reload will fail.",
                path.display()
            );
        }
    }
    // By the user it runs as, who alone may then connect.
    let control = settings.control_socket.as_deref().map(ControlDoor::open).transpose().map_err(failed)?;
    let control = Control::new(control);
    let (broker, keeper) = server::broker(&settings).map_err(failed)?;
    let _pid_file = settings.startup.pid_file.as_deref().map(PidFile::write).transpose().map_err(failed)?;
    let notify = Notify::from_env().unwrap_or_else(|error| {
        warn!("Warning: the service manager cannot be told how it goes: {error}.");
        Notify::default()
    });
    let start =
        Start { settings, signals, doors, control, broker, keeper, notify, read_settings: Box::new(read_settings) };
    let server = Server::new(start).map_err(failed)?;
    Ok(Program { server, daemon, _pid_file })
}

/// Password and access control files, read with the privileges of the start. Entries of users that are wrong are left out.
fn load_rights(settings: &mut Settings) -> Result<(), (String, u8)> {
    let told = rights::load(&mut settings.listeners);
    told.warnings.iter().for_each(|warning| warn!("Warning: {warning}"));
    told.left_out.iter().for_each(|fault| error!("Error: {fault} The line is left out."));
    match told.refused.split_first() {
        None => Ok(()),
        Some((first, more)) => {
            more.iter().rev().for_each(|fault| error!("Error: {fault}"));
            Err((first.clone(), EXIT_USAGE))
        }
    }
}

/// What flags and file say by now.
fn read_settings() -> Result<Settings, UsageError> {
    match options::parse(arguments(), &DiskFiles)? {
        Parsed::Run(settings) => Ok(with_environment(settings)),
        // The flags were none of these when the program started, and are the same.
        _ => Err(UsageError::from("The flags ask for something else than to serve.".to_string())),
    }
}

/// Containers of Mosquitto are told so where their data is.
fn with_environment(mut settings: Settings) -> Settings {
    if let (Some(store), Some(location)) = (&mut settings.store, env::var_os("MOSQUITTO_PERSISTENCE_LOCATION")) {
        store.location = location.into();
    }
    settings
}

fn arguments() -> impl Iterator<Item = OsString> {
    env::args_os().skip(1)
}

/// Says why the program ends: in the log, or plainly on standard error if there is none or it is silenced.
fn fail(why: &str, code: u8) -> ExitCode {
    if log_enabled!(Level::Error) {
        error!("Error: {why}");
        logger::finish();
    } else {
        complain(why);
    }
    ExitCode::from(code)
}
