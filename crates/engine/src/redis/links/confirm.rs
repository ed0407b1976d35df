//! Waits for the copies of what was written.

use super::Moment;
use super::call::Durability;
use super::cell::Cell;
use super::fault::LinkFault;
use super::masters::Masters;
use super::pipe::{Asked, LONGEST_WAIT, Pipe};
use super::server::Server;
use super::wire::{not_sent, refused};
use redis::{Cmd, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// First server that can be asked whether its file is synced.
const WAITAOF_SINCE: (u32, u32) = (7, 2);
/// What a server is given less than its asker, so that its answer comes in time.
const MARGIN: Duration = Duration::from_millis(200);
/// For how long the key stays that is written along.
const TOUCH_MS: usize = 60_000;

/// Asks every server that has one of the cells, and waits for all of them.
pub async fn confirm(
    masters: &Masters,
    moment: Moment,
    cells: &[Cell],
    durability: Durability,
    deadline: Instant,
) -> Result<(), LinkFault> {
    if durability == Durability::None {
        return Ok(());
    }
    let mut pending = Vec::new();
    for (server, cell) in servers(masters, cells)? {
        let pipe = server.pipe().map_err(|_| replaced())?;
        if pipe.born() > moment.0 {
            return Err(replaced());
        }
        let Some(command) = command(&pipe, durability, deadline) else {
            continue;
        };
        let asked = asked(cell, &command);
        pending.push(
            server
                .submit(&pipe, asked, deadline)
                .await
                .map_err(|_| replaced())?,
        );
    }
    for pending in pending {
        let mut answers = pending.answers(deadline).await.into_iter();
        let touched = answers.next().unwrap_or(Err(LinkFault::Closed))?;
        if let Value::ServerError(error) = touched {
            // The slot has moved, or the server is no master any more.
            return Err(LinkFault::Unknown(
                format!("it cannot be confirmed any more: {}", error.code()).into(),
            ));
        }
        judge(answers.next().unwrap_or(Err(LinkFault::Closed))?, durability)?;
    }
    Ok(())
}

/// The servers that have the cells, each once, with one of its cells.
fn servers<'a>(masters: &'a Masters, cells: &[Cell]) -> Result<Vec<(&'a Arc<Server>, Cell)>, LinkFault> {
    let mut servers: Vec<(&Arc<Server>, Cell)> = Vec::new();
    for cell in cells {
        let server = masters
            .of(*cell)
            .ok_or_else(|| not_sent("no server has the slot"))?;
        if !servers.iter().any(|(known, _)| known.id == server.id) {
            servers.push((server, *cell));
        }
    }
    Ok(servers)
}

/// What is asked; `None` where the answer to the write itself said it all: before 7.2 a server with `appendfsync
/// always` syncs before it answers, and cannot be asked.
fn command(pipe: &Pipe, durability: Durability, deadline: Instant) -> Option<Cmd> {
    let left = deadline.saturating_duration_since(super::now());
    let wait = left.saturating_sub(MARGIN).min(LONGEST_WAIT).as_millis().max(1);
    let wait = usize::try_from(wait).unwrap_or(1);
    match durability {
        Durability::None => None,
        Durability::Replicas(count) => {
            let mut command = redis::cmd("WAIT");
            command.arg(count).arg(wait);
            Some(command)
        }
        Durability::Aof if pipe.greeting().version < WAITAOF_SINCE => None,
        Durability::Aof => {
            let mut command = redis::cmd("WAITAOF");
            command.arg(1).arg(0).arg(wait);
            Some(command)
        }
    }
}

/// A server waits for what the same connection wrote last, and a commit that is repeated writes nothing: so a key is
/// written along, after which everything before it counts.
fn asked(cell: Cell, command: &Cmd) -> Asked {
    let mut touch = redis::cmd("SET");
    touch.arg(cell.key("touch")).arg(1).arg("PX").arg(TOUCH_MS);
    let mut bytes = touch.get_packed_command();
    command.write_packed_command(&mut bytes);
    Asked {
        bytes,
        count: 2,
        waits: true,
    }
}

fn judge(answer: Value, durability: Durability) -> Result<(), LinkFault> {
    let (wanted, confirmed) = match (answer, durability) {
        (Value::ServerError(error), _) => return Err(refused(&error)),
        (Value::Int(replicas), Durability::Replicas(wanted)) => (wanted, replicas),
        (Value::Array(counts), Durability::Aof) => match counts.first() {
            Some(Value::Int(local)) => (1, *local),
            _ => (1, 0),
        },
        (_, Durability::Replicas(wanted)) => (wanted, 0),
        (_, Durability::Aof | Durability::None) => (1, 0),
    };
    let confirmed = u32::try_from(confirmed).unwrap_or(0);
    if confirmed >= wanted {
        Ok(())
    } else {
        Err(LinkFault::Unconfirmed { wanted, confirmed })
    }
}

fn replaced() -> LinkFault {
    LinkFault::Unknown("the connection was made anew since the write".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_copies_are_a_fault() {
        assert_eq!(judge(Value::Int(2), Durability::Replicas(2)), Ok(()));
        let few = LinkFault::Unconfirmed {
            wanted: 2,
            confirmed: 1,
        };
        assert_eq!(judge(Value::Int(1), Durability::Replicas(2)), Err(few));
        let counts = |local| Value::Array(vec![Value::Int(local), Value::Int(0)]);
        assert_eq!(judge(counts(1), Durability::Aof), Ok(()));
        assert!(judge(counts(0), Durability::Aof).is_err());
        assert!(judge(Value::Nil, Durability::Replicas(1)).is_err());
    }
}
