//! The pages in a real browser: Debian's Chromium, driven by WebDriver, before the real program.
//!
//! Each test has a server, a browser and a directory of its own, all gone when it ends. Nothing waits for a while:
//! [`driver::Browser::until`] looks until something is so, and says what it saw if that does not come. A test ends with
//! [`driver::Browser::is_quiet`]: whatever the console said meanwhile, refusals by the policy of the page among it,
//! was expected.

mod basics;
mod driver;
mod form;
mod frames;
#[allow(dead_code, reason = "shared with the tests of the command line, which use more of it")]
#[path = "../cli/harness.rs"]
mod harness;
mod incidents;
mod keys;
mod site;
mod steer;
mod story;
