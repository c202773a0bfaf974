//! `server`: watches a folder of workflow files, works on every run, and answers over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use pitcrew_control::backfill;
use pitcrew_control::base_url::BaseUrl;
use pitcrew_control::cluster::{self, keep::Keep};
use pitcrew_control::config::Settings;
use pitcrew_control::ecs::keep::Keeper;
use pitcrew_control::events;
use pitcrew_control::folder;
use pitcrew_control::hooks;
use pitcrew_control::notify::outbox::Outbox;
use pitcrew_control::notify::weekly;
use pitcrew_control::scheduler::schedules;
use pitcrew_ecs::Client;
use pitcrew_server::{self, AuthConfig, ServeOptions, Server};
use pitcrew_store::Owner;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::context::Context;
use super::error::{invalid, refused};
use super::retention;
use super::session::{Prepared, Session};
use super::ui::Ui;

/// Serve a folder of workflow files, with pages and an API
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// The folder of workflow files; made when missing [env: PITCREW_WORKFLOWS]
    #[arg(long, value_name = "DIR")]
    pub workflows: Option<PathBuf>,
    /// Where to answer; 127.0.0.1:8793 unless given [env: PITCREW_LISTEN]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where other servers of the same database reach this one [env: PITCREW_ADVERTISE]
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// Live tasks at most, over all runs [env: PITCREW_PARALLELISM]
    #[arg(long, value_name = "N")]
    pub parallelism: Option<u32>,
    /// Ask nobody for a password; on loopback addresses only [env: PITCREW_AUTH=false]
    #[arg(long)]
    pub no_auth: bool,
}

/// Names under which browsers may reach a server on loopback, besides `localhost`; separated by commas.
pub(super) const HOSTS: &str = "PITCREW_HOSTS";
/// The password of `admin`, instead of one that is made and stored.
pub(super) const PASSWORD: &str = "PITCREW_ADMIN_PASSWORD";

/// A server that is about to answer, with everything behind it at work.
pub struct Serving {
    pub session: Session,
    pub server: Server,
    /// Watches the folder, serves the schedules, removes what is old.
    tasks: Vec<JoinHandle<()>>,
}

pub async fn command(_: ServerArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let workflows = settings.workflows();
    let context = Context::open(ui, settings).await?;
    std::fs::create_dir_all(&workflows).map_err(|error| {
        invalid(format!(
            "cannot make the folder `{}`: {error}\nhint: choose another with `--workflows DIR`",
            workflows.display()
        ))
    })?;
    let workflows = workflows.canonicalize()?;
    let listen = address(context.settings.listen()).await?;
    let listener = Server::bind(listen).await.map_err(refused)?;
    let auth = match (context.settings.auth(), std::env::var(PASSWORD)) {
        (false, _) => AuthConfig::Off,
        (true, Ok(password)) => AuthConfig::Password(password),
        (true, Err(_)) => AuthConfig::Generated,
    };
    let hooks = match context.settings.hooks_listen() {
        Some(text) => Some(Server::bind(address(text).await?).await.map_err(refused)?),
        None => None,
    };
    let at = hooks.as_ref().map(TcpListener::local_addr).transpose()?;
    let mut serving = Serving::start(&context, listener, auth, Some(workflows.clone())).await?;
    if let Some(listener) = hooks {
        serving.server = serving.server.with_hooks(listener);
    }
    tell(&context, &serving.server, &workflows, at);
    serving.until(shutdown_signal()?).await?;
    ui.say("pitcrew has ended; tasks that run go on, and the next server takes them over");
    Ok(ExitCode::SUCCESS)
}

impl Serving {
    /// Starts everything but the answering.
    pub async fn start(
        context: &Context,
        listener: TcpListener,
        auth: AuthConfig,
        workflows: Option<PathBuf>,
    ) -> anyhow::Result<Serving> {
        let listen = listener.local_addr()?;
        let base_url = context.settings.base_url().unwrap_or_else(|| BaseUrl::of(listen)).to_string();
        let prepared = Prepared::new(context).await?;
        let owner: Arc<Owner> = prepared.owner.clone();
        let mut session = prepared.serve(context, base_url.clone()).await?;
        let app = session.app.clone();
        let hosts = std::env::var(HOSTS).unwrap_or_default();
        let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect();
        let (metrics_open, settings) = (context.settings.metrics_open(), context.settings.clone());
        let options = ServeOptions { listen, auth, hosts, metrics_open, settings };
        let server = Server::new(app.clone(), listener, options).await.map_err(refused)?;
        let outbox = Outbox::new(&app, base_url.clone())?;
        let mut tasks = vec![
            tokio::spawn(schedules::run(app.clone(), owner.clone())),
            tokio::spawn(backfill::serve::run(app.clone(), owner.clone())),
            tokio::spawn(outbox.run(owner.clone())),
            tokio::spawn(weekly::run(app.clone(), owner.clone(), base_url)),
            tokio::spawn(events::run(app.clone(), owner.clone())),
            tokio::spawn(hooks::process::run(app.clone(), owner)),
            tokio::spawn(cluster::announce(app.clone(), server.as_leader())),
            tokio::spawn(app.fleet.clone().run(session.asker.clone(), app.scheduler.standing())),
            tokio::spawn(app.fleet.clone().follow_clusters(session.clusters.clone(), app.scheduler.standing())),
            tokio::spawn(app.fleet.clone().follow_kubernetes(session.kubernetes.clone(), app.scheduler.standing())),
            tokio::spawn(app.fleet.clone().watch_workers(app.workers.clone())),
            tokio::spawn(pitcrew_exec::thrift::watch()),
        ];
        if let Some(keeper) = tables(context)? {
            tasks.push(tokio::spawn(keeper.run(app.scheduler.standing())));
        }
        if let Some(recovery) = session.recovery.take() {
            tasks.push(tokio::spawn(recovery.run(app.scheduler.standing())));
        }
        if let Some(local) = app.backends.homed() {
            tasks.push(tokio::spawn(Keep { local, url: server.as_leader().url }.run()));
        }
        if let Some(folder) = workflows {
            let app = app.clone();
            tasks.push(tokio::spawn(async move {
                if let Err(error) = folder::watch(app, folder).await {
                    tracing::error!("the folder of workflows is no longer watched: {error:#}");
                }
            }));
        }
        if let Some(days) = context.settings.retention_days() {
            tasks.push(tokio::spawn(retention::run(app, days)));
        }
        Ok(Serving { session, server, tasks })
    }

    /// Answers until `shutdown`, then writes what is pending; attempts go on.
    pub async fn until(self, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let served = self.server.run(shutdown).await;
        self.tasks.iter().for_each(JoinHandle::abort);
        self.session.shutdown().await;
        served
    }
}

/// Who writes the tables of DynamoDB, if that is configured.
fn tables(context: &Context) -> anyhow::Result<Option<Keeper>> {
    let Some(config) = context.settings.ecs.as_ref().and_then(|ecs| ecs.tables.as_ref()) else { return Ok(None) };
    let region = config.region.clone().unwrap_or_else(|| context.aws.region());
    let client = Client::new(context.aws.clone(), &region).map_err(refused)?.as_role(config.role.as_deref());
    Ok(Some(Keeper { store: context.store.clone(), client, tables: config.names() }))
}

fn tell(context: &Context, server: &Server, workflows: &std::path::Path, hooks: Option<SocketAddr>) {
    let ui = &context.ui;
    let paint = ui.err;
    let line = |name: &str, text: String| ui.say(format!("  {} {text}", paint.dim(format!("{name:<10}"))));
    ui.say(paint.bold("pitcrew is ready"));
    line("pages", server.base_url());
    if let Some(at) = hooks {
        line("webhooks", format!("{}/hooks/NAMESPACE/LISTENER", BaseUrl::of(at)));
    }
    line("workflows", workflows.display().to_string());
    line("data", context.data.root().display().to_string());
    line("database", context.store.url().to_string());
    if let Some(password) = server.fresh_password() {
        line("login", format!("user `{}`, password {} (shown only now)", pitcrew_server::ADMIN, paint.bold(password)));
        line("", format!("or open, within half an hour: {}", server.login_link("/")));
    } else if !context.settings.auth() {
        line("login", "none: whoever reaches this address may do anything".to_owned());
    }
    ui.say(paint.dim("  Ctrl-C ends the server; tasks that run go on"));
}

/// The address that a text means; a name is looked up.
async fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let found = tokio::net::lookup_host(text).await;
    let mut found = found.map_err(|error| invalid(format!("cannot listen on `{text}`: {error}")))?;
    found.next().ok_or_else(|| invalid(format!("cannot listen on `{text}`: the name has no address")))
}

/// Resolves when the process is asked to end.
pub fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // A second signal ends the process at once.
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
        tracing::info!("ending; tasks that run go on");
    })
}
