//! What most commands begin with: the data directory, the store, and the run or task that was named.

use std::sync::Arc;

use jiff::Timestamp;
use pitcrew_control::catalog::Catalog;
use pitcrew_control::clock;
use pitcrew_control::config::Settings;
use pitcrew_control::given;
use pitcrew_control::lookup;
use pitcrew_control::paths::DataDir;
use pitcrew_control::secrets;
use pitcrew_control::vault::Vault;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::ir::Workflow;
use pitcrew_exec::aws::Aws;
use pitcrew_exec::secrets::Secrets;
use pitcrew_lang::diagnostic::closest;
use pitcrew_store::{AuditEntry, Store, WorkflowRow};
use rustix::fs::Access;

use super::control::Peers;
use super::error::{self, invalid, refused};
use super::ui::Ui;

/// An opened store, without a scheduler.
pub struct Context {
    pub ui: Ui,
    pub settings: Settings,
    pub data: DataDir,
    pub vault: Vault,
    pub store: Store,
    pub aws: Aws,
    pub secrets: Secrets,
    pub catalog: Arc<Catalog>,
}

impl Context {
    pub async fn open(ui: Ui, settings: Settings) -> anyhow::Result<Context> {
        let data = data_dir(&settings)?;
        let vault = Vault::new(&data, &|name| std::env::var(name).ok()).map_err(refused)?;
        let url = settings.store().map_err(refused)?;
        let store = Store::open(&url)
            .await
            .map_err(|error| anyhow::Error::new(error).context(format!("cannot open the database `{url}`")))?;
        let store = store.with_given(given::read(given::environment(), &vault).map_err(refused)?);
        let aws = secrets::aws(settings.aws_region())?;
        let secrets = secrets::open(&store, &vault, &aws)?;
        Ok(Context { ui, settings, data, vault, store, aws, secrets, catalog: Arc::default() })
    }

    pub fn now(&self) -> Timestamp {
        clock::now()
    }

    /// How to call this program for the same data directory, for hints.
    pub fn pitcrew(&self) -> String {
        self.settings.pitcrew()
    }

    /// Where the server of this data directory answers, if one runs.
    pub async fn server_url(&self) -> Option<String> {
        Peers::find(&self.data).await.server().map(|peer| peer.hello.url.clone())
    }

    /// Says what to do about a run that is not over and that no process of this machine works on.
    pub async fn hint_if_orphaned(&self, run: &RunRecord) {
        let mut peers = Peers::find(&self.data).await;
        if !run.state.is_final() && peers.owner_of(run.key).await.is_none() && peers.server().is_none() {
            let (key, pitcrew) = (run.key, self.pitcrew());
            self.ui
                .hint(format!("nobody works on run {key}: start `{pitcrew} server`, or `{pitcrew} runs resume {key}`"));
        }
    }

    /// An audit entry of this user.
    pub fn audit(&self, event: &str) -> AuditEntry {
        AuditEntry::new(self.now(), who(), event)
    }

    /// The run that a person means: its number, its id, `latest`, or a workflow for the latest run of that.
    pub async fn run(&self, text: &str) -> anyhow::Result<RunRecord> {
        lookup::run(&self.store, text, &self.place()).await.map_err(error::lookup)
    }

    /// The workflow of that name, also one whose file is gone.
    pub async fn workflow(&self, text: &str) -> anyhow::Result<WorkflowRow> {
        lookup::workflow(&self.store, text, &self.place()).await.map_err(error::lookup)
    }

    fn place(&self) -> String {
        format!(" in `{}`", self.data.root().display())
    }

    /// The definition that a run goes by.
    pub async fn definition(&self, run: &RunRecord) -> anyhow::Result<Arc<Workflow>> {
        self.catalog.load_for(&self.store, run).await
    }
}

/// A task as typed: `name`, or `name[3]`; checked against the workflow.
pub fn task(workflow: &Workflow, text: &str) -> anyhow::Result<(String, Option<i32>)> {
    let (name, map_index) = match text.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
        None => (text, None),
        Some((name, index)) => match index.parse::<i32>() {
            Ok(index) if index >= 0 => (name, Some(index)),
            _ => return Err(invalid(format!("`{text}` is no task: a map index is a whole number from 0"))),
        },
    };
    if workflow.find(name).is_some() {
        return Ok((name.to_owned(), map_index));
    }
    let names: Vec<&str> = workflow.tasks.iter().map(|task| task.id.as_str()).collect();
    let hint = match closest(name, names.iter().copied()) {
        Some(meant) => format!("\nhint: did you mean `{meant}`?"),
        None if names.len() <= 20 => {
            format!("\nhint: it has {}", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))
        }
        None => String::new(),
    };
    Err(invalid(format!("the workflow `{}` has no task `{name}`{hint}", workflow.id)))
}

/// Who types this, for the audit log.
pub fn who() -> String {
    let user =
        ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok()).find(|user| !user.is_empty());
    user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// Opens the data directory. One that cannot be written fails here, with its name, and not in the middle of something.
pub fn data_dir(settings: &Settings) -> anyhow::Result<DataDir> {
    let path = settings.data_dir();
    let hint = "choose another with `--data-dir DIR`";
    if path.exists() && !path.is_dir() {
        return Err(invalid(format!("the data directory `{}` is a file\nhint: {hint}", path.display())));
    }
    let data = DataDir::open(&path).map_err(refused)?;
    rustix::fs::access(data.root(), Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        let why = std::io::Error::from(error);
        invalid(format!("cannot write into the data directory `{}`: {why}\nhint: {hint}", path.display()))
    })?;
    Ok(data)
}
