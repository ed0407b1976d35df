//! Programs that show Postrider at work on real input; each is a cargo example beside this file.
//!
//! What an example needs and a test can check lives here, such as [`changelog`].

pub mod changelog;
