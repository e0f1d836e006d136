//! The index of an access control file: for each user's section a tree of the levels of its filters. A request walks the
//! tree once, along its topic's levels, so that it costs their number and the wildcards that fit, whatever the number of rules.
//!
//! Rules are tried denials first and then in the order of the file, and the first one that fits decides. So of all rules of
//! one kind only the earliest one counts, and a tree can be walked in any order: at each place where filters end it keeps the
//! earliest line of each kind, and the walk keeps the earliest of those it meets.
//!
//! Built once, never changed. A node is reached by one path only, so a walk visits each at most once. No allocation after
//! building: a variable level is compared with the client's name where it stands.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

const NONE: u32 = u32::MAX;

/// The parent of the sections, which are found by their names like levels.
const SECTIONS: u32 = NONE - 1;

/// Where a section's tree begins.
pub(super) type Root = u32;

/// The earliest lines that deny, allow reading and allow writing, or NONE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Earliest {
    deny: u32,
    read: u32,
    write: u32,
}

impl Earliest {
    const NOTHING: Earliest = Earliest { deny: NONE, read: NONE, write: NONE };

    /// One rule: a denial, or what it allows.
    pub fn rule(line: u32, deny: bool, read: bool, write: bool) -> Earliest {
        let line_if = |wanted| if wanted { line } else { NONE };
        Earliest { deny: line_if(deny), read: line_if(read), write: line_if(write) }
    }

    fn add(&mut self, other: &Earliest) {
        self.deny = self.deny.min(other.deny);
        self.read = self.read.min(other.read);
        self.write = self.write.min(other.write);
    }

    pub fn deny(&self) -> Option<u32> {
        (self.deny != NONE).then_some(self.deny)
    }

    pub fn read(&self) -> Option<u32> {
        (self.read != NONE).then_some(self.read)
    }

    pub fn write(&self) -> Option<u32> {
        (self.write != NONE).then_some(self.write)
    }
}

/// A level of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level<'a> {
    Name(&'a str),
    /// `+`
    Any,
    /// `%c`
    ClientId,
    /// `%u`
    Username,
}

struct Node {
    parent: u32,
    /// Where the name of the level begins in the texts.
    text: u32,
    text_len: u16,
    /// Whether any level below has a name.
    has_names: bool,
    any: u32,
    client_id: u32,
    username: u32,
    /// Filters that end here.
    here: Earliest,
    /// Filters that end here with a `#`.
    below: Earliest,
}

/// What a variable level is compared with.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
}

pub(super) struct Levels {
    nodes: Vec<Node>,
    /// Nodes with names, by parent and name: open addressing, at most half full, NONE where nothing is.
    slots: Vec<u32>,
    used: usize,
    texts: String,
    nodes_max: usize,
}

impl Levels {
    /// At most so many nodes: some 48 bytes and twice a slot of 4 to 8 bytes each, and the names.
    pub fn new(nodes_max: usize) -> Levels {
        Levels { nodes: Vec::new(), slots: vec![NONE; 16], used: 0, texts: String::new(), nodes_max }
    }

    /// A section that is found by no name; nothing when all nodes are used.
    pub fn push_root(&mut self) -> Option<Root> {
        self.push(NONE, "")
    }

    /// The section of this name, made if it is not there; nothing when all nodes are used.
    pub fn section(&mut self, name: &str) -> Option<Root> {
        self.named(SECTIONS, name)
    }

    pub fn find_section(&self, name: &str) -> Option<Root> {
        self.find(SECTIONS, name)
    }

    /// Adds a rule for these levels, and with `below` for all that is below them; false when all nodes are used.
    pub fn add<'a>(
        &mut self,
        root: Root,
        levels: impl Iterator<Item = Level<'a>>,
        below: bool,
        rule: &Earliest,
    ) -> bool {
        let mut at = root;
        for level in levels {
            let next = match level {
                Level::Name(name) => self.named(at, name),
                Level::Any => self.variable(at, |node| &mut node.any),
                Level::ClientId => self.variable(at, |node| &mut node.client_id),
                Level::Username => self.variable(at, |node| &mut node.username),
            };
            let Some(next) = next else { return false };
            at = next;
        }
        let node = &mut self.nodes[at as usize];
        if below { &mut node.below } else { &mut node.here }.add(rule);
        true
    }

    /// The earliest rules of the section that match the topic. [MQTT-4.7.2-1]
    pub fn matching(&self, root: Root, topic: &str, names: &Names) -> Earliest {
        let mut found = Earliest::NOTHING;
        if topic.starts_with('$') {
            // Neither a wildcard nor a variable begins with `$`.
            let (first, rest) = split(topic);
            if let Some(child) = self.find(root, first) {
                self.walk(child, rest, names, &mut found);
            }
        } else {
            self.walk(root, Some(topic), names, &mut found);
        }
        found
    }

    fn walk(&self, at: u32, rest: Option<&str>, names: &Names, found: &mut Earliest) {
        let node = &self.nodes[at as usize];
        // `a/#` matches `a`, too.
        found.add(&node.below);
        let Some(rest) = rest else {
            found.add(&node.here);
            return;
        };
        let (level, rest) = split(rest);
        if node.has_names
            && let Some(child) = self.find(at, level)
        {
            self.walk(child, rest, names, found);
        }
        if node.any != NONE {
            self.walk(node.any, rest, names, found);
        }
        // A name that holds a `/` is no level.
        if node.client_id != NONE && names.client_id == level {
            self.walk(node.client_id, rest, names, found);
        }
        if node.username != NONE && names.username == Some(level) {
            self.walk(node.username, rest, names, found);
        }
    }

    fn variable(&mut self, at: u32, place: fn(&mut Node) -> &mut u32) -> Option<u32> {
        let child = *place(&mut self.nodes[at as usize]);
        if child != NONE {
            return Some(child);
        }
        let child = self.push(at, "")?;
        *place(&mut self.nodes[at as usize]) = child;
        Some(child)
    }

    fn named(&mut self, parent: u32, name: &str) -> Option<u32> {
        if let Some(node) = self.find(parent, name) {
            return Some(node);
        }
        let node = self.push(parent, name)?;
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            parent.has_names = true;
        }
        self.used += 1;
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
        self.insert(node);
        Some(node)
    }

    fn push(&mut self, parent: u32, name: &str) -> Option<u32> {
        let text = u32::try_from(self.texts.len()).ok()?;
        let text_len = u16::try_from(name.len()).ok()?;
        if self.nodes.len() >= self.nodes_max {
            return None;
        }
        self.texts.push_str(name);
        self.nodes.push(Node {
            parent,
            text,
            text_len,
            has_names: false,
            any: NONE,
            client_id: NONE,
            username: NONE,
            here: Earliest::NOTHING,
            below: Earliest::NOTHING,
        });
        Some(self.nodes.len() as u32 - 1)
    }

    fn name(&self, node: &Node) -> &str {
        &self.texts[node.text as usize..][..usize::from(node.text_len)]
    }

    fn find(&self, parent: u32, name: &str) -> Option<u32> {
        let mut slot = hash(parent, name) as usize & (self.slots.len() - 1);
        loop {
            let index = self.slots[slot];
            let node = self.nodes.get(index as usize)?;
            if node.parent == parent && self.name(node) == name {
                return Some(index);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn insert(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let mut slot = hash(node.parent, self.name(node)) as usize & (self.slots.len() - 1);
        while self.slots[slot] != NONE {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = index;
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![NONE; old.len() * 2];
        for index in old.into_iter().filter(|&index| index != NONE) {
            self.insert(index);
        }
    }

    /// Whether all nodes are used.
    pub fn is_full(&self) -> bool {
        self.nodes.len() >= self.nodes_max
    }

    /// No more room than is needed, for what stays as it is.
    pub fn finish(&mut self) {
        self.nodes.shrink_to_fit();
        self.texts.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.slots.capacity() * 4 + self.texts.capacity()
    }
}

/// The first level, and what is behind its slash.
fn split(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}

/// Without a seed: who could choose names that collide writes the file.
fn hash(parent: u32, name: &str) -> u64 {
    let mut hasher = FoldHasher::with_seed(u64::from(parent).rotate_left(32), SharedSeed::global_fixed());
    hasher.write(name.as_bytes());
    hasher.finish()
}
