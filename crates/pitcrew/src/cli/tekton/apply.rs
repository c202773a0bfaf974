//! `apply -f`: puts what files say into the store, and starts the runs among it.

use std::path::PathBuf;
use std::process::ExitCode;

use pitcrew_control::clock;
use pitcrew_control::tekton::objects::{self, kind_and_name};
use pitcrew_control::tekton::start::How;

use super::{Documents, create, run};
use crate::cli::context::{Context, who};
use crate::cli::error::refused;
use crate::cli::load;

/// Put Tekton's documents into the store, and start the runs among them
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// A file of documents; can be given several times, `-` is stdin
    #[arg(short = 'f', long, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// The namespace of documents that name none
    #[arg(short, long, value_name = "NAME", default_value = objects::DEFAULT_NAMESPACE)]
    namespace: String,
    /// Only say whether the files are right
    #[arg(long)]
    dry_run: bool,
}

pub async fn command(args: ApplyArgs, context: Context) -> anyhow::Result<ExitCode> {
    let sources = args.filename.iter().map(|path| load::source(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let Documents { runs, others } = super::read(&sources, &args.namespace, &context.ui)?;
    let who = who();
    let how = How { namespace: &args.namespace, one_machine: false, on: None, by: &who, now: clock::now() };
    // What a run reaches may have been applied before.
    let mut known = others.clone();
    known.extend(create::definitions(&context, &others, &args.namespace).await?);
    let made = runs.iter().map(|document| run::make(document, &known, how)).collect::<anyhow::Result<Vec<_>>>()?;
    for document in &others {
        kind_and_name(document).map_err(refused)?;
    }
    if args.dry_run {
        context.ui.say(format!("{} documents are right; nothing was done", others.len() + made.len()));
        return Ok(ExitCode::SUCCESS);
    }
    for document in &others {
        let (kind, name) = kind_and_name(document).map_err(refused)?;
        let put = objects::put(&context.store, &context.vault, document, &args.namespace, &who, clock::now()).await;
        context.ui.line(format!("{}/{name} {}", kind.to_lowercase(), put.map_err(refused)?.word()))?;
    }
    for new in made {
        let name = format!("{}/{}", new.object.kind.to_lowercase(), new.object.name);
        create::create(&context, new).await?;
        context.ui.line(format!("{name} created"))?;
    }
    Ok(ExitCode::SUCCESS)
}
