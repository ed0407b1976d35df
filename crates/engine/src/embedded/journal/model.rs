//! A model of a file system and of what loss of power does to it: of what was written since the last sync
//! of a file any part may be there, in any pieces; of what happened to names since they were synced, any
//! number of the first. A sync that fails may have brought any part to the disk, and never tries the rest
//! again, though reading still shows it. Calls can be made to fail.

use super::files::{Files, Handle};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// SplitMix64.
#[derive(Debug, Clone)]
pub(in crate::embedded) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Length(length) => to.resize(*length, 0),
            Change::Write(at, data) => {
                to.resize(to.len().max(at + data.len()), 0);
                to[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, Default)]
struct Content {
    /// Surely on the disk.
    synced: Vec<u8>,
    /// What reading shows.
    seen: Vec<u8>,
    /// Not synced yet.
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Naming {
    Set(String, usize),
    Gone(String),
    Renamed(String, String),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Naming::Set(name, content) => drop(names.insert(name.clone(), *content)),
            Naming::Gone(name) => drop(names.remove(name)),
            Naming::Renamed(from, to) => {
                if let Some(content) = names.remove(from) {
                    names.insert(to.clone(), content);
                }
            }
        }
    }
}

/// Which calls fail, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::embedded) struct Failing {
    pub writes: Option<ErrorKind>,
    pub syncs: Option<ErrorKind>,
    pub reads: Option<ErrorKind>,
    pub names: Option<ErrorKind>,
}

#[derive(Debug)]
pub(in crate::embedded) struct Disk {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    pending_names: Vec<Naming>,
    rng: Rng,
    /// Changes and syncs until the power goes.
    pub power: Option<usize>,
    pub failing: Failing,
    /// Bytes that all files together may have.
    pub room: Option<usize>,
    pub syncs: usize,
    pub writes: usize,
}

/// The model; clones are the same disk.
#[derive(Debug, Clone)]
pub(in crate::embedded) struct Model(Arc<Mutex<Disk>>);

impl Model {
    pub fn new(seed: u64) -> Model {
        Model(Arc::new(Mutex::new(Disk {
            contents: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            pending_names: Vec::new(),
            rng: Rng(seed),
            power: None,
            failing: Failing::default(),
            room: None,
            syncs: 0,
            writes: 0,
        })))
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Disk) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The disk as it is found when the power is back.
    pub fn after_power_loss(&self) -> Model {
        self.with(|disk| {
            let mut rng = disk.rng.clone();
            let mut names = disk.synced_names.clone();
            let kept = rng.below(disk.pending_names.len() + 1);
            disk.pending_names[..kept]
                .iter()
                .for_each(|naming| naming.apply(&mut names));
            let found = Model::new(rng.next());
            for (name, content) in names {
                let bytes = disk.contents[content].after_power_loss(&mut rng);
                found.put(&name, bytes);
            }
            found
        })
    }

    /// The disk as another process finds it, the one before having been killed.
    pub fn after_kill(&self) -> Model {
        self.with(|disk| {
            let copy = Model::new(disk.rng.next());
            copy.with(|other| {
                other.contents = disk.contents.clone();
                other.names = disk.names.clone();
                other.synced_names = disk.synced_names.clone();
                other.pending_names = disk.pending_names.clone();
            });
            copy
        })
    }

    /// A file that is on the disk.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.with(|disk| {
            let content = disk.contents.len();
            disk.contents.push(Content {
                synced: bytes.clone(),
                seen: bytes,
                pending: Vec::new(),
            });
            disk.names.insert(name.to_owned(), content);
            disk.synced_names.insert(name.to_owned(), content);
        });
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.with(|disk| disk.contents[disk.names[name]].seen.clone())
    }

    pub fn list(&self) -> Vec<String> {
        self.with(|disk| disk.names.keys().cloned().collect())
    }
}

impl Content {
    fn after_power_loss(&self, rng: &mut Rng) -> Vec<u8> {
        let mut found = self.synced.clone();
        let keep = rng.below(5);
        for change in &self.pending {
            if rng.below(4) > keep.min(3) {
                continue;
            }
            torn(change, rng).apply(&mut found);
        }
        found
    }
}

/// A part of a change, or all of it.
fn torn(change: &Change, rng: &mut Rng) -> Change {
    match change {
        Change::Write(at, data) if rng.one_in(3) => {
            let cut = rng.below(data.len() + 1);
            match rng.one_in(2) {
                true => Change::Write(*at, data[..cut].to_vec()),
                false => Change::Write(at + cut, data[cut..].to_vec()),
            }
        }
        change => change.clone(),
    }
}

fn fails(kind: Option<ErrorKind>) -> Result<()> {
    kind.map_or(Ok(()), |kind| Err(Error::from(kind)))
}

impl Disk {
    fn spend(&mut self) -> Result<()> {
        match &mut self.power {
            Some(0) => Err(Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, content: usize, change: Change) -> Result<()> {
        self.writes += 1;
        if self.power == Some(0) {
            return self.spend();
        }
        if let Err(error) = fails(self.failing.writes) {
            // Some of it may have been written.
            if self.rng.one_in(2) {
                let part = torn(&change, &mut self.rng);
                part.apply(&mut self.contents[content].seen);
                self.contents[content].pending.push(part);
            }
            return Err(error);
        }
        self.find_room(content, &change)?;
        // The one during which the power goes may still leave something.
        self.contents[content].pending.push(change.clone());
        self.spend()?;
        change.apply(&mut self.contents[content].seen);
        Ok(())
    }

    /// Bytes that all files have.
    pub fn used(&self) -> usize {
        let lengths = self
            .names
            .values()
            .map(|content| self.contents[*content].seen.len());
        lengths.sum()
    }

    /// Refuses a change that would make a file longer than there is room for.
    fn find_room(&self, content: usize, change: &Change) -> Result<()> {
        let length = self.contents[content].seen.len();
        let end = match change {
            Change::Length(end) => *end,
            Change::Write(at, data) => at + data.len(),
        };
        let more = end.saturating_sub(length);
        match self.room {
            Some(room) if more > 0 && self.used() + more > room => Err(Error::from(ErrorKind::StorageFull)),
            _ => Ok(()),
        }
    }

    fn sync(&mut self, content: usize) -> Result<()> {
        self.syncs += 1;
        self.spend()?;
        let failed = fails(self.failing.syncs);
        let Disk { contents, rng, .. } = self;
        let Content { synced, pending, .. } = &mut contents[content];
        for change in pending.drain(..) {
            match &failed {
                Ok(()) => change.apply(synced),
                Err(_) if rng.one_in(2) => torn(&change, rng).apply(synced),
                Err(_) => {}
            }
        }
        failed
    }

    fn name(&mut self, naming: Naming) -> Result<()> {
        fails(self.failing.names)?;
        self.spend()?;
        naming.apply(&mut self.names);
        self.pending_names.push(naming);
        Ok(())
    }
}

#[derive(Debug)]
struct OpenFile(Model, usize);

impl StorageBackend for OpenFile {
    fn len(&self) -> Result<u64> {
        self.0.with(|disk| Ok(disk.contents[self.1].seen.len() as u64))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.0.with(|disk| {
            fails(disk.failing.reads)?;
            let from = offset as usize;
            let part = disk.contents[self.1].seen.get(from..from + out.len());
            out.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0
            .with(|disk| disk.change(self.1, Change::Length(len as usize)))
    }
    fn sync_data(&self) -> Result<()> {
        self.0.with(|disk| disk.sync(self.1))
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let change = Change::Write(offset as usize, data.to_vec());
        self.0.with(|disk| disk.change(self.1, change))
    }
}

impl Files for Model {
    fn shown(&self, name: &str) -> String {
        format!("/model/{name}")
    }
    fn open(&self, name: &str, make: bool) -> Result<Handle> {
        let content = self.with(|disk| match (disk.names.get(name), make) {
            (Some(_), true) => Err(Error::from(ErrorKind::AlreadyExists)),
            (None, false) => Err(Error::from(ErrorKind::NotFound)),
            (Some(content), false) => Ok(*content),
            (None, true) => {
                let content = disk.contents.len();
                disk.name(Naming::Set(name.to_owned(), content))?;
                disk.contents.push(Content::default());
                Ok(content)
            }
        })?;
        Ok(Handle(Arc::new(OpenFile(self.clone(), content))))
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.with(|disk| {
            if !disk.names.contains_key(from) {
                return Err(Error::from(ErrorKind::NotFound));
            }
            disk.name(Naming::Renamed(from.to_owned(), to.to_owned()))
        })
    }
    fn taken(&self, name: &str) -> Result<u64> {
        let content = |disk: &mut Disk| Some(disk.contents[*disk.names.get(name)?].seen.len() as u64);
        self.with(content).ok_or(Error::from(ErrorKind::NotFound))
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.with(|disk| {
            if !disk.names.contains_key(name) {
                return Err(Error::from(ErrorKind::NotFound));
            }
            disk.name(Naming::Gone(name.to_owned()))
        })
    }
    fn names(&self) -> Result<Vec<String>> {
        Ok(self.list())
    }
    fn sync_names(&self) -> Result<()> {
        self.with(|disk| {
            fails(disk.failing.syncs)?;
            disk.spend()?;
            disk.synced_names = disk.names.clone();
            disk.pending_names.clear();
            Ok(())
        })
    }
    fn random(&self) -> Result<u64> {
        Ok(self.with(|disk| disk.rng.next()))
    }
}
