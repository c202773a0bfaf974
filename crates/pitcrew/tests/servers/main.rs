//! Several servers on one PostgreSQL: it does not matter which of them is asked, and which of them is killed.
//!
//! With `PITCREW_TEST_POSTGRES`, a server in which databases can be made; without it the tests say so and end.

mod files;
mod kills;
mod large;
mod left;
mod link;
mod logs;
mod machines;
mod passing;
mod world;
