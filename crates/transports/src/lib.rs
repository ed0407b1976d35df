//! The connection plane: the front that accepts sockets, the hub that holds sessions, and the three wires
//! they speak. What is not an inbox request is referred to the API with the bytes already read.

pub mod gate;
pub mod problem;

pub use gate::{Credentials, Gate, Identity};
pub use problem::Problem;
