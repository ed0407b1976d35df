//! Bytes that changed on the disk while nobody looked: damaged copies of a data directory, many, from one seed.
//!
//! Invariant checked: the node refuses to start and names the file, or it runs and says of each thing that it cannot
//! read that it cannot. What it delivers is what was accepted; what it leaves out it does not call complete.
//!
//! The ends of files are left alone: there, damage cannot be told from a write that a crash cut short.
//!
//! `POSTRIDER_DAMAGES` (copies, default 24) and `POSTRIDER_SEED`.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postrider_harness::http::{Conn, Request, escape};
use postrider_harness::node::{DidNotStart, KEY, Node, NodeOptions};
use postrider_harness::publish::Publisher;
use postrider_harness::token;
use postrider_harness::user::User;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const COPIES: u64 = 24;
const USERS: usize = 8;
const NOTIFICATIONS: usize = 400;
/// How long one request may take, on whatever it runs into.
const PROMPT: Duration = Duration::from_secs(15);
/// Files smaller than this hold no records; a node that cannot read one must still say so at the start.
const RECORDS_BYTES: u64 = 4096;

/// What was accepted: for each id its data and its recipients.
type Accepted = HashMap<String, (Value, Vec<String>)>;

/// What became of one damaged copy.
#[derive(Default)]
struct Outcomes {
    refused: u32,
    unharmed: u32,
    told: u32,
    violations: Vec<String>,
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} refused to start, {} ran unharmed, {} ran and told what they could not read, {} violations",
            self.refused,
            self.unharmed,
            self.told,
            self.violations.len()
        )
    }
}

#[test]
fn damage_is_told_and_never_skipped() -> Result<()> {
    let number = |name: &str, default: u64| std::env::var(name).map_or(Ok(default), |text| text.parse());
    let (copies, seed) = (
        number("POSTRIDER_DAMAGES", COPIES)?,
        number("POSTRIDER_SEED", 11)?,
    );
    let work = tempfile::tempdir()?;
    let mut outcomes = Outcomes::default();
    for killed in [false, true] {
        let origin = work.path().join(if killed { "killed" } else { "ended" });
        let accepted = prepare(&origin, killed)?;
        for copy in 0..copies / 2 {
            let damaged = work.path().join("copy");
            copy_directory(&origin, &damaged)?;
            let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + copy * 2 + u64::from(killed));
            let what = damage(&damaged, &mut rng)?;
            let name = format!("copy {copy}, killed {killed}, {what}");
            if let Err(e) = examine(&damaged, &accepted, &what, &mut outcomes) {
                outcomes.violations.push(format!("{name}: {e:#}"));
            }
            fs::remove_dir_all(&damaged)?;
        }
    }
    println!("damage: POSTRIDER_SEED={seed}: of {copies} copies {outcomes}");
    ensure!(
        outcomes.violations.is_empty(),
        "with POSTRIDER_SEED={seed}:\n{}",
        outcomes.violations.join("\n")
    );
    Ok(())
}

/// Fills a directory, and ends the node in order or by a kill.
fn prepare(dir: &Path, killed: bool) -> Result<Accepted> {
    let mut node = Node::start_with(NodeOptions::default().data_dir(dir))?;
    let mut publisher = Publisher::new(&node.endpoint, KEY);
    let mut accepted = Accepted::new();
    for n in 0..NOTIFICATIONS {
        let id = format!("n{n}");
        let data = json!({"id": id, "pad": "w".repeat(n % 7 * 100)});
        let mut notification = json!({"id": id, "data": data});
        let mut recipients: Vec<String> = (0..USERS).map(|u| format!("user-{u}")).collect();
        if n % 10 > 0 {
            recipients = vec![format!("user-{}", n % USERS), format!("user-{}", (n + 3) % USERS)];
            notification["users"] = json!(recipients);
        }
        publisher.accepted(&notification)?;
        accepted.insert(id, (data, recipients));
    }
    // So that there are marks to be damaged, too. None of these is asked for later.
    for user in 0..USERS {
        let user = format!("user-{user}");
        let first: Vec<String> = User::new(&node.endpoint, &user)?
            .pending()?
            .into_iter()
            .take(3)
            .collect();
        let ids: Vec<&str> = first.iter().map(String::as_str).collect();
        User::new(&node.endpoint, &user)?.ack(&ids)?;
        for id in &first {
            if let Some((_, recipients)) = accepted.get_mut(id) {
                recipients.retain(|r| *r != user);
            }
        }
    }
    if killed {
        node.kill9()?;
    } else {
        node.terminate(Duration::from_secs(25))?;
    }
    Ok(accepted)
}

/// What was done to a copy.
struct Damage {
    file: PathBuf,
    places: Vec<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        write!(
            f,
            "{} bytes of {name} from {:?} on",
            self.places.len(),
            self.places.first()
        )
    }
}

/// Changes bytes in the middle of one file that holds records.
fn damage(dir: &Path, rng: &mut StdRng) -> Result<Damage> {
    let mut files = Vec::new();
    for file in files_below(dir)? {
        if fs::metadata(&file)?.len() >= RECORDS_BYTES {
            files.push(file);
        }
    }
    let file = files.choose(rng).context("no file of records")?.clone();
    let mut bytes = fs::read(&file)?;
    // Room that was only reserved holds nothing that could be damaged.
    let used: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    let middle = &used[used.len() / 50..used.len() * 9 / 10];
    let count = *[1, 3, 10, 40].choose(rng).unwrap_or(&1);
    let mut places: Vec<usize> = middle.choose_multiple(rng, count).copied().collect();
    places.sort_unstable();
    for &at in &places {
        bytes[at] ^= rng.random_range(1..=255u8);
    }
    fs::write(&file, bytes)?;
    Ok(Damage {
        file,
        places: places.into_iter().map(|at| at as u64).collect(),
    })
}

/// Starts a node on a damaged copy and compares what it gives with what was accepted.
fn examine(dir: &Path, accepted: &Accepted, damage: &Damage, outcomes: &mut Outcomes) -> Result<()> {
    let node = match Node::start_with(NodeOptions::default().data_dir(dir)) {
        Ok(node) => node,
        Err(e) => {
            refused(&e.downcast::<DidNotStart>()?, damage)?;
            outcomes.refused += 1;
            return Ok(());
        }
    };
    // At once, since a poll waits a little for what cannot be read.
    let mut told = std::thread::scope(|scope| -> Result<u32> {
        let node = &node;
        let readers: Vec<_> = (0..USERS)
            .map(|user| scope.spawn(move || read_all(node, &format!("user-{user}"), accepted)))
            .collect();
        let mut told = 0;
        for reader in readers {
            told += reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        Ok(told)
    })?;
    for id in accepted.keys() {
        told += look_up(&node, id)?;
    }
    told += publish(&node)?;
    let log = node.log();
    if told == 0 {
        outcomes.unharmed += 1;
        return Ok(());
    }
    ensure!(
        log.contains("damaged") || log.contains("is lost"),
        "refused, and the log does not say why: {log}"
    );
    outcomes.told += 1;
    Ok(())
}

/// The refusal names the file, or the directory if the fault is of the whole.
fn refused(refusal: &DidNotStart, damage: &Damage) -> Result<()> {
    let log = &refusal.log;
    let code = refusal.status.context("it neither started nor ended")?.code();
    ensure!(code == Some(1), "exit {code:?}: {log}");
    let file = damage.file.file_name().unwrap_or_default().to_string_lossy();
    ensure!(log.contains(&*file), "the refusal does not name {file}: {log}");
    Ok(())
}

/// Reads an inbox to its end. Returns how often the node told that it cannot.
fn read_all(node: &Node, user: &str, accepted: &Accepted) -> Result<u32> {
    let mut got: HashMap<String, String> = HashMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let after = cursor
            .as_deref()
            .map(|c| format!("&cursor={}", escape(c)))
            .unwrap_or_default();
        let target = format!("/v1/inbox?wait=0&limit=1000&ack=none{after}");
        let (status, page) = ask(node, &Request::new("GET", &target).bearer(&token::user(user)?))
            .with_context(|| format!("reading as {user}"))?;
        if status != 200 {
            ensure!(status == 503, "reading as {user}: {status} {page}");
            return Ok(1);
        }
        if page["gap"] == true {
            return Ok(1);
        }
        let list = page["notifications"].as_array().context("no notifications")?;
        for entry in list {
            let id = entry["id"].as_str().context("no id")?.to_owned();
            let (data, recipients) = accepted
                .get(&id)
                .with_context(|| format!("{user} got {id}, which was never sent"))?;
            ensure!(entry["data"] == *data, "{user} got {id} changed: {entry}");
            ensure!(
                recipients.iter().any(|r| r == user),
                "{user} got {id}, which is not pending for it"
            );
            ensure!(
                got.insert(id.clone(), String::new()).is_none(),
                "{user} got {id} twice"
            );
        }
        cursor = page["cursor"].as_str().map(str::to_owned);
        if list.is_empty() {
            break;
        }
    }
    let missing: Vec<&String> = accepted
        .iter()
        .filter(|(id, (_, recipients))| recipients.iter().any(|r| r == user) && !got.contains_key(*id))
        .map(|(id, _)| id)
        .collect();
    if missing.is_empty() {
        return Ok(0);
    }
    let Lost { ids, nameless } = lost(node, user)?;
    let silent: Vec<_> = missing.into_iter().filter(|id| !ids.contains(id)).collect();
    let some = silent.iter().take(5).collect::<Vec<_>>();
    ensure!(
        silent.len() <= nameless,
        "{user} was told that this is all, without {} such as {some:?}",
        silent.len()
    );
    Ok(1)
}

/// What was given up because it could not be read.
struct Lost {
    ids: Vec<String>,
    /// Entries of which even the id is gone.
    nameless: usize,
}

/// What of a user's feed, and of everyone's, is a dead letter for this reason.
fn lost(node: &Node, user: &str) -> Result<Lost> {
    let target = "/v1/dead-letters?reason=lost&limit=1000";
    let (status, list) = ask(node, &Request::new("GET", target).bearer(KEY))?;
    let mut lost = Lost {
        ids: Vec::new(),
        nameless: 0,
    };
    if status != 200 {
        return Ok(lost);
    }
    for letter in list["dead_letters"].as_array().context("no dead_letters")? {
        if letter["user"] != *user && !letter["user"].is_null() {
            continue;
        }
        match letter["notification"].as_str() {
            Some(id) => lost.ids.push(id.to_owned()),
            None => lost.nameless += 1,
        }
    }
    Ok(lost)
}

/// An accepted id is known, or cannot be looked up; it is not unknown.
fn look_up(node: &Node, id: &str) -> Result<u32> {
    let (status, told) = ask(
        node,
        &Request::new("GET", &format!("/v1/notifications/{id}")).bearer(KEY),
    )?;
    match status {
        200 => {
            ensure!(told["id"] == id, "asked for {id}, told of {told}");
            Ok(0)
        }
        503 => Ok(1),
        _ => anyhow::bail!("{id} was accepted, and is {status} {told}"),
    }
}

/// Publishing goes on, or is refused; what is accepted is then there.
fn publish(node: &Node) -> Result<u32> {
    let body = json!({"id": "afterwards", "users": ["somebody-new"], "data": 1}).to_string();
    let request = Request::new("POST", "/v1/notifications")
        .bearer(KEY)
        .body("application/json", body);
    let (status, told) = ask(node, &request)?;
    if status == 503 {
        return Ok(1);
    }
    ensure!(status == 202, "publishing: {status} {told}");
    let poll = Request::new("GET", "/v1/inbox?wait=0&ack=none").bearer(&token::user("somebody-new")?);
    let (status, page) = ask(node, &poll)?;
    if status == 503 {
        return Ok(1);
    }
    let ids: Vec<&Value> = page["notifications"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|n| &n["id"])
        .collect();
    ensure!(
        ids.contains(&&json!("afterwards")),
        "accepted, and not there: {page}"
    );
    Ok(0)
}

/// An answer in time.
fn ask(node: &Node, request: &Request) -> Result<(u16, Value)> {
    let mut conn = Conn::open(node.endpoint.addr()?, None)?;
    let answer = conn.call(request, Instant::now() + PROMPT)?;
    Ok((answer.status(), answer.json()?))
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    for file in files_below(from)? {
        let target = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(target.parent().context("no parent")?)?;
        fs::copy(&file, target)?;
    }
    Ok(())
}

/// All regular files below a directory, by name.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
