//! Another configuration while the broker runs: taken over as a whole, or not at all.

use std::path::Path;
use std::rc::Rc;

use log::{error, info, warn};

use super::{FIRST_CONTROL, Server, core_config, has_passwords, no_thread};
use crate::broker::LinkId;
use crate::config::{Config, Rules};
use crate::logger;
use crate::net::{ControlDoor, OpenError};
use crate::options::Settings;
use crate::rights;

impl Server {
    /// Flags and file are read again, and all that can change while the broker runs is taken over; or, if anything is wrong,
    /// nothing is. Says what is wrong. Log files are opened again either way.
    pub(super) fn reload(&mut self) -> Vec<String> {
        info!("Reloading config.");
        self.notify.reloading();
        let refused = match (self.read_settings)() {
            Ok(settings) => self.take_over(settings).err().unwrap_or_default(),
            Err(error) => error.lines().to_vec(),
        };
        for why in &refused {
            error!("Error: {why}");
        }
        match refused.is_empty() {
            true => info!("The new configuration is in force."),
            false => error!("Error: the configuration stays what it was, because of what is wrong with the new one."),
        }
        self.notify.ready();
        logger::reopen();
        refused
    }

    fn take_over(&mut self, mut new: Settings) -> Result<(), Vec<String>> {
        let one = |error: String| vec![error];
        let mut told = rights::load(&mut new.listeners);
        let warnings = std::mem::take(&mut told.warnings);
        let faults = told.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let plan = self.doors.plan(&new.listeners).map_err(|error| one(error.to_string()))?;
        if has_passwords(&new) {
            self.start_verifier().map_err(|error| one(no_thread(&error)))?;
        }
        let control = self.other_control(new.control_socket.as_deref()).map_err(|error| one(error.to_string()))?;
        let older = self.doors.all_rules();
        logger::reconfigure(&new.log).map_err(one)?;
        // From here on nothing fails.
        self.doors.commit(plan);
        if let Some(door) = control
            && let Err(error) = self.control.replace_door(door, self.poll.registry(), FIRST_CONTROL)
        {
            error!("Error: the control socket cannot be watched: {error}.");
        }
        for warning in new.warnings.iter().chain(&warnings) {
            warn!("Warning: {warning}");
        }
        if (&new.store, &new.startup) != (&self.settings.store, &self.settings.startup)
            || new.core.persistence != self.settings.core.persistence
        {
            warn!(
                "Warning: what the new configuration says of storage, user, pid file and background counts from the next start on."
            );
        }
        let core = Config { persistence: self.settings.core.persistence, ..core_config(&new) };
        self.broker.reconfigure(core, self.now);
        let replaced: Vec<(Rc<Rules>, Rc<Rules>)> = older
            .into_iter()
            .filter_map(|(listener, older)| Some((older, self.doors.rules_of(listener)?.clone())))
            .filter(|(older, rules)| !Rc::ptr_eq(older, rules))
            .collect();
        self.broker.replace_rules(&replaced);
        for id in 0..self.transports.len() {
            if self.transports[id].is_some()
                && let Some(rules) = self.doors.rules_of(self.entrances[id])
            {
                self.broker.set_rules(id as LinkId, rules, self.now);
            }
        }
        self.admit_leaving();
        let started = std::mem::replace(&mut self.settings, new);
        // What counts from the next start on is compared with what counted at this one.
        self.settings.store = started.store;
        self.settings.startup = started.startup;
        self.settings.core.persistence = started.core.persistence;
        Ok(())
    }

    /// The door that belongs at this path if it is not the one there is: another one, or none.
    fn other_control(&self, path: Option<&Path>) -> Result<Option<Option<ControlDoor>>, OpenError> {
        let is_there = match (path, self.control.door()) {
            (Some(path), Some(door)) => door.serves(path),
            (path, door) => path.is_none() && door.is_none(),
        };
        if is_there { Ok(None) } else { path.map(ControlDoor::open).transpose().map(Some) }
    }
}
