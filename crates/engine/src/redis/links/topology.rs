//! Which master has which cell, as the Cluster or the Sentinels tell it. Pure.

use super::cell::{CELLS, Cell};
use super::url::Address;
use super::wire::text;
use redis::Value;

/// The master of each cell, by cell; `None` where nobody has its slot.
pub type Homes = Vec<Option<Address>>;

/// All cells on one master.
pub fn one_home(master: &Address) -> Homes {
    vec![Some(master.clone()); usize::from(CELLS)]
}

/// From the answer to `CLUSTER SLOTS`, given by `asked`. `None` where it is not one.
pub fn homes_of_slots(answer: &Value, asked: &Address) -> Option<Homes> {
    let Value::Array(ranges) = answer else {
        return None;
    };
    let mut homes = vec![None; usize::from(CELLS)];
    for range in ranges {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), master, ..] = parts.as_slice() else {
            return None;
        };
        let Some(master) = node(master, asked) else {
            continue;
        };
        for cell in Cell::all().filter(|cell| (*first..=*last).contains(&i64::from(cell.slot()))) {
            homes[cell.index()] = Some(master.clone());
        }
    }
    Some(homes)
}

/// A node of `CLUSTER SLOTS`: host, port, and more. No host, or an empty one, means that of the node that answered;
/// `?` that the node does not know its name.
fn node(value: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [host, Value::Int(port), ..] = parts.as_slice() else {
        return None;
    };
    let host = match (host, text(host)) {
        (Value::Nil, _) => asked.host.clone(),
        (_, Some(host)) if host.is_empty() => asked.host.clone(),
        (_, Some(host)) if host != "?" => host,
        _ => return None,
    };
    Some(Address {
        host,
        port: u16::try_from(*port).ok().filter(|port| *port > 0)?,
    })
}

/// From the answer to `SENTINEL GET-MASTER-ADDR-BY-NAME`: host and port. `None` where the name is not known.
pub fn master_of_sentinel(answer: &Value) -> Option<Address> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [host, port] = parts.as_slice() else {
        return None;
    };
    Some(Address {
        host: text(host)?,
        port: text(port)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Address {
        Address {
            host: "asked".into(),
            port: 1,
        }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])]);
        let replica = Value::Array(vec![bulk("replica"), Value::Int(9), bulk("id2")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
    }

    #[test]
    fn each_cell_is_where_its_slot_is() {
        let answer = Value::Array(vec![
            range(0, 5460, bulk("a"), 7000),
            range(5461, 10_922, bulk(""), 7001),
            range(10_923, 16_383, Value::Nil, 7002),
        ]);
        let homes = homes_of_slots(&answer, &asked()).expect("well-formed");
        for cell in Cell::all() {
            let home = homes[cell.index()].clone().expect("all slots are served");
            let wanted = match cell.slot() {
                0..=5460 => ("a", 7000),
                5461..=10_922 => ("asked", 7001),
                _ => ("asked", 7002),
            };
            assert_eq!((home.host.as_str(), home.port), wanted);
        }
    }

    #[test]
    fn what_nobody_serves_has_no_home() {
        let answer = Value::Array(vec![
            range(0, 8000, bulk("a"), 7000),
            range(8001, 16_383, bulk("?"), 7001),
        ]);
        let homes = homes_of_slots(&answer, &asked()).expect("well-formed");
        for cell in Cell::all() {
            assert_eq!(homes[cell.index()].is_some(), cell.slot() <= 8000);
        }
        let none = homes_of_slots(&Value::Array(vec![]), &asked()).expect("a Cluster without slots");
        assert!(none.iter().all(Option::is_none));
    }

    #[test]
    fn what_is_not_an_answer_is_not_taken() {
        for answer in [
            Value::Nil,
            Value::Int(3),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![])]),
        ] {
            assert_eq!(homes_of_slots(&answer, &asked()), None);
            assert_eq!(master_of_sentinel(&answer), None);
        }
        let master = Value::Array(vec![bulk("10.0.0.9"), bulk("6380")]);
        assert_eq!(
            master_of_sentinel(&master),
            Some(Address {
                host: "10.0.0.9".into(),
                port: 6380
            })
        );
    }
}
