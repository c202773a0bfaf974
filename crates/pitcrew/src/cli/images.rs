//! `images`: whether images may be used here, as the configuration says.

use std::process::ExitCode;

use pitcrew_control::config::Settings;
use pitcrew_control::signatures;
use serde_json::json;

use super::Output;
use super::error::{self, invalid, refused};
use super::ui::Ui;

/// Ask whether images are signed as the configuration wants it
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct ImagesArgs {
    #[command(subcommand)]
    command: ImagesCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ImagesCommand {
    /// Say who has signed an image and which digest it has, or why it is refused
    ///
    /// `signatures` of the configuration says whose signature an image needs. The registry is asked as it is before a
    /// container is made.
    Verify {
        /// Such as `registry.example.com/team/name:tag`; several are asked for one after the other
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
}

pub async fn command(args: ImagesArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let ImagesCommand::Verify { images, output } = args.command;
    let Some(gate) = signatures::gate(settings.signatures.as_deref()).map_err(refused)? else {
        return Err(invalid(
            "there is no `signatures` in the configuration: images need no signature (docs/signatures.md)",
        ));
    };
    let mut told = Vec::new();
    let mut is_good = true;
    for image in &images {
        match gate.admit(image).await {
            Ok(admitted) => {
                let by = admitted.signer.as_ref().map(ToString::to_string);
                if output.is_json() {
                    told.push(json!({ "image": image, "admitted": admitted.image, "signer": admitted.signer }));
                } else {
                    let by = by.map_or("it needs no signature".to_owned(), |by| format!("signed by {by}"));
                    ui.line(format!("{}  {by}", admitted.image))?;
                }
            }
            Err(why) => {
                is_good = false;
                if output.is_json() {
                    told.push(json!({ "image": image, "refused": why.to_string() }));
                } else {
                    ui.warn(why);
                }
            }
        }
    }
    if output.is_json() {
        ui.json(&told)?;
    }
    if is_good { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::from(error::FAILED)) }
}
