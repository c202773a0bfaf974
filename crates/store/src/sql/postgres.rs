//! PostgreSQL: a pool of connections, and one more per owner whose session holds its locks.
//!
//! An owner lives as long as its session: the server releases an advisory lock when the connection ends, and the
//! session asks the server to notice dead connections within 7 seconds. When the connection breaks, the session
//! makes a new one and takes its lock again; who claimed runs in between keeps them, and the fence in
//! `commit` says so. Leading is a second lock of the same session.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::db::{Db, Tx, args};
use super::{Place, Sql, migrate};
use crate::error::{Result, StoreError};
use crate::watch::Bell;

/// Where changes of runs are told.
pub(super) const CHANNEL: &str = "pitcrew_runs";
/// The lock of the leader, in the space of the keys of owners, which all are random.
const LEADER: i64 = 0x5049_5443_5245_5701;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a session looks whether it still is connected.
const PING: Duration = Duration::from_secs(2);
const POOL: u32 = 12;

/// What a session needs to connect.
pub(super) struct Server(PgConnectOptions);

pub(crate) async fn open(address: &str) -> Result<Sql> {
    let options = PgConnectOptions::from_str(address)?
        .application_name("pitcrew")
        .statement_cache_capacity(200)
        .disable_statement_logging();
    // One connection by hand first: a pool tries again and again, and tells nothing but a timeout.
    connect(&options).await?.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(POOL)
        .acquire_timeout(Duration::from_secs(30))
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(options.clone());
    let db = Db::Postgres(pool);
    migrate::run(&db).await?;
    Ok(Sql::new(db, Place::Postgres(Server(options))))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    let place = || format!("PostgreSQL at {}:{}", options.get_host(), options.get_port());
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(match StoreError::from(error) {
            StoreError::Unavailable(text) => StoreError::Unavailable(format!("{}: {text}", place())),
            other => other,
        }),
        Err(_) => Err(StoreError::Unavailable(format!(
            "{} does not answer within {} s: check the address, and that the server runs",
            place(),
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}

/// Whether an owner lives. The test lasts as long as the transaction, so nobody comes to life within it.
pub(super) async fn lives(tx: &mut Tx, id: &str) -> Result<bool> {
    let Some(key) = lock_key(id) else { return Ok(false) };
    // Shared, so that two who look at the same time do not take each other for the owner.
    let row = tx.fetch_one("SELECT pg_try_advisory_xact_lock_shared($1)", args![key]).await?;
    Ok(!row.map_or(Ok(false), |row| row.get::<bool>(0))?)
}

/// The random half of an id.
fn lock_key(id: &str) -> Option<i64> {
    uuid::Uuid::try_parse(id).ok().map(|id| id.as_u64_pair().1.cast_signed())
}

/// Rings when another server tells of a change, and every `poll` in case a message was lost.
pub(super) async fn watch(pool: &PgPool, bell: &Bell, poll: Duration) {
    loop {
        let listen = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            // Whatever happened before we listened.
            bell.ring();
            loop {
                tokio::select! {
                    message = listener.try_recv() => drop(message?),
                    () = tokio::time::sleep(poll) => {}
                    () = bell.unheard() => return Ok::<(), sqlx::Error>(()),
                }
                bell.ring();
            }
        };
        match listen.await {
            Ok(()) | Err(sqlx::Error::PoolClosed) => return,
            Err(error) => tracing::warn!(%error, "cannot listen for changes of runs, trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(poll) => bell.ring(),
            () = bell.unheard() => return,
        }
    }
}

impl Server {
    pub async fn register(&self, id: &str) -> Result<Session> {
        let key = lock_key(id).ok_or_else(|| StoreError::Backend(format!("`{id}` is no id of an owner")))?;
        let mut connection = connect(&self.0).await?;
        if !take_lock(&mut connection, key).await? {
            return Err(StoreError::Conflict(format!("owner `{id}` is registered already")));
        }
        let state = Arc::new(State { held: AtomicBool::new(true), breaks: AtomicU64::new(0) });
        let (questions, asked) = mpsc::channel(8);
        let task = tokio::spawn(keep(self.0.clone(), connection, key, asked, state.clone()));
        Ok(Session { questions, state, task })
    }
}

/// Locks the key for this session, unless another one has it.
async fn take_lock(connection: &mut PgConnection, key: i64) -> Result<bool, sqlx::Error> {
    // The server drops the session, and with it the locks, 7 s after the last sign of our machine; a standby asks for
    // them every second, and is to be at work within ten.
    let keepalive = "SELECT set_config('tcp_keepalives_idle', '3', false), \
         set_config('tcp_keepalives_interval', '2', false), set_config('tcp_keepalives_count', '2', false), \
         set_config('tcp_user_timeout', '7000', false)";
    sqlx::query(keepalive).execute(&mut *connection).await?;
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(key).fetch_one(connection).await
}

/// The locks of one owner, kept by a task of their own.
pub(crate) struct Session {
    /// Each asks to become the leader. Closing the channel ends the session.
    questions: mpsc::Sender<oneshot::Sender<bool>>,
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// What the task that keeps the locks tells.
struct State {
    held: AtomicBool,
    /// How often the locks were lost so far.
    breaks: AtomicU64,
}

impl State {
    fn broken(&self) {
        if self.held.swap(false, Ordering::AcqRel) {
            self.breaks.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Session {
    pub async fn end(self) {
        drop(self.questions);
        // It ends by itself; if it panicked, its connection and its locks are gone too.
        let _ = self.task.await;
    }

    pub fn is_held(&self) -> bool {
        self.state.held.load(Ordering::Acquire)
    }

    pub fn breaks(&self) -> u64 {
        self.state.breaks.load(Ordering::Acquire)
    }

    pub async fn try_lead(&self) -> Result<bool> {
        let gone = || StoreError::Unavailable("the session of this owner has ended".to_owned());
        let (answer, leads) = oneshot::channel();
        self.questions.send(answer).await.map_err(|_| gone())?;
        leads.await.map_err(|_| gone())
    }
}

/// Keeps the session until its owner is dropped.
async fn keep(
    options: PgConnectOptions,
    connection: PgConnection,
    key: i64,
    mut questions: mpsc::Receiver<oneshot::Sender<bool>>,
    state: Arc<State>,
) {
    let mut connection = Some(connection);
    let mut leads = false;
    loop {
        let question = tokio::select! {
            question = questions.recv() => match question {
                Some(question) => Some(question),
                None => break,
            },
            () = tokio::time::sleep(PING) => None,
        };
        if connection.is_none() {
            connection = again(&options, key).await;
            state.held.store(connection.is_some(), Ordering::Release);
        }
        if let Some(alive) = &mut connection {
            let asked = question.is_some() && !leads;
            match tokio::time::timeout(CONNECT_TIMEOUT, ask(alive, asked)).await {
                Ok(Ok(locked)) => leads |= locked,
                broken => {
                    tracing::warn!(?broken, "the connection that holds this server's runs broke, making a new one");
                    connection = None;
                    leads = false;
                    state.broken();
                }
            }
        }
        if let Some(question) = question {
            // Nobody waits for the answer any more: the owner is being dropped.
            let _ = question.send(leads);
        }
    }
    if let Some(mut connection) = connection {
        // Errors do not matter: the server releases the locks of a connection however it ends.
        let _ = sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut connection).await;
        let _ = connection.close().await;
    }
}

/// Asks for the leader's lock, or just whether the server is there.
async fn ask(connection: &mut PgConnection, lead: bool) -> Result<bool, sqlx::Error> {
    if lead {
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LEADER).fetch_one(connection).await
    } else {
        connection.ping().await.map(|()| false)
    }
}

/// A new connection that has the lock. `None` also while the server still holds it for the old connection.
async fn again(options: &PgConnectOptions, key: i64) -> Option<PgConnection> {
    let mut connection = connect(options).await.ok()?;
    let locked = tokio::time::timeout(CONNECT_TIMEOUT, take_lock(&mut connection, key)).await;
    matches!(locked, Ok(Ok(true))).then_some(connection)
}
