//! Where stored connections lead, for whoever asks many hosts every few seconds.
//!
//! All rows are read at once, and each is opened once for as long as it says the same, so a host that is asked again costs no
//! query. Invariant: what is given out was so at most [`FRESH`] ago; whoever changes anything on a host does not go by it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::ConfigFile;
use pitcrew_store::Connection as Row;

/// How old what is given out may be.
const FRESH: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(super) struct Places(tokio::sync::Mutex<Known>);

#[derive(Default)]
struct Known {
    read: Option<Instant>,
    file: ConfigFile,
    rows: HashMap<String, Row>,
    /// Of those that somebody asked for, with the row that it was made of.
    places: HashMap<String, (Row, SshPlace)>,
}

impl Places {
    /// Where this connection leads; `read` reads all rows, and `place` opens one.
    pub async fn of<R>(
        &self,
        id: &str,
        now: Instant,
        read: impl FnOnce() -> R,
        place: impl FnOnce(&Row, &ConfigFile) -> Result<SshPlace, String>,
    ) -> Result<SshPlace, String>
    where
        R: Future<Output = Result<(Vec<Row>, ConfigFile), String>>,
    {
        let mut known = self.0.lock().await;
        let is_fresh = known.read.is_some_and(|read| now.saturating_duration_since(read) < FRESH);
        // One that was made just now is looked for as well.
        if !is_fresh || !known.rows.contains_key(id) {
            let (rows, file) = read().await?;
            if file != known.file {
                known.places.clear();
            }
            (known.read, known.file) = (Some(now), file);
            known.rows = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        }
        let known = &mut *known;
        let Some(row) = known.rows.get(id) else {
            known.places.remove(id);
            return Err(format!("there is no connection `{id}`: `pitcrew connections add` makes one"));
        };
        if let Some((of, place)) = known.places.get(id)
            && of == row
        {
            return Ok(place.clone());
        }
        known.places.remove(id);
        let place = place(row, &known.file)?;
        known.places.insert(id.to_owned(), (row.clone(), place.clone()));
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    fn row(id: &str, host: &str) -> Row {
        let text = String::new;
        let (id, host, conn_type) = (id.to_owned(), host.to_owned(), "ssh".to_owned());
        let (description, schema, login) = (text(), text(), text());
        Row { id, conn_type, description, host, schema, login, port: None, password: None, extra: None }
    }

    #[tokio::test]
    async fn many_questions_are_one_query_and_what_changes_is_seen_soon() {
        let (places, begin) = (Places::default(), crate::clock::instant());
        let (queries, opened) = (Cell::new(0), Cell::new(0));
        let ask = async |id: &str, seconds: u64, rows: &[Row]| {
            let read = || {
                queries.set(queries.get() + 1);
                std::future::ready(Ok((rows.to_vec(), ConfigFile::default())))
            };
            let open = |row: &Row, _: &ConfigFile| {
                opened.set(opened.get() + 1);
                let place = json!({ "host": row.host, "port": 22, "user": "ada", "timeout_s": 10 });
                Ok(serde_json::from_value::<SshPlace>(place).unwrap())
            };
            let place = places.of(id, begin + Duration::from_secs(seconds), read, open).await;
            place.map(|place| place.host)
        };
        let rows = [row("a", "one"), row("b", "two")];
        for second in 0..5 {
            assert_eq!(ask("a", second, &rows).await.as_deref(), Ok("one"));
            assert_eq!(ask("b", second, &rows).await.as_deref(), Ok("two"));
        }
        assert_eq!((queries.get(), opened.get()), (1, 2));
        let moved = [row("a", "three"), row("b", "two")];
        assert_eq!(ask("a", 5, &moved).await.as_deref(), Ok("three"));
        assert_eq!(ask("b", 5, &moved).await.as_deref(), Ok("two"));
        assert_eq!((queries.get(), opened.get()), (2, 3));
        // One that is new is not waited for, and one that is gone is told.
        let new = [row("c", "four")];
        assert_eq!(ask("c", 6, &new).await.as_deref(), Ok("four"));
        assert!(ask("a", 6, &new).await.unwrap_err().contains("there is no connection `a`"));
    }
}
