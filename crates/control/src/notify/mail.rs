//! Mail by SMTP, as text and as a page.
//!
//! The id of a message is made of the notice's, so a repetition after a crash is the same message to a mail program.

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{AsyncSmtpTransport, Error};
use lettre::{AsyncTransport, Tokio1Executor};

use super::config::{Channel, Mail, Security};
use super::message::Message;
use super::send::{Failed, Sender};
use super::text;

/// Checks a mail address, with or without a name before it. The error is the end of a sentence.
pub fn address(text: &str) -> Result<Mailbox, String> {
    text.parse::<Mailbox>().map_err(|error| error.to_string().to_lowercase())
}

/// Tells programs that answer for people on holiday to keep quiet.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

pub async fn send(sender: &Sender, channel: &Channel, mail: &Mail, message: &Message) -> Result<(), Failed> {
    let letter = letter(mail, message)?;
    let transport = transport(sender, channel, mail).await?;
    transport.send(letter).await.map(drop).map_err(|error| failed(mail, &error))
}

fn letter(mail: &Mail, message: &Message) -> Result<lettre::Message, Failed> {
    let mailbox =
        |text: &str| address(text).map_err(|why| Failed::lasting(format!("`{text}` is not a mail address: {why}")));
    let from = mailbox(&mail.from)?;
    let id = format!("<pitcrew-{}@{}>", message.id, from.email.domain());
    let mut letter = lettre::Message::builder().from(from).message_id(Some(id)).header(AutoSubmitted);
    for to in &mail.to {
        letter = letter.to(mailbox(to)?);
    }
    // The weekly digest brings a page of its own.
    let page = match message.html.trim_start().get(..9).is_some_and(|start| start.eq_ignore_ascii_case("<!doctype")) {
        true => message.html.clone(),
        false => format!("<!doctype html><html><body>{}</body></html>", message.html),
    };
    letter
        .subject(format!("[pitcrew] {}", message.subject))
        .multipart(MultiPart::alternative_plain_html(message.text.clone(), page))
        .map_err(|error| Failed::lasting(format!("the mail cannot be made: {error}")))
}

async fn transport(
    sender: &Sender,
    channel: &Channel,
    mail: &Mail,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, Failed> {
    let tls = match mail.security {
        Security::None => Tls::None,
        Security::StartTls => Tls::Required(parameters(mail).await?),
        Security::Tls => Tls::Wrapper(parameters(mail).await?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.server)
        .port(mail.port)
        .tls(tls)
        .timeout(Some(channel.timeout));
    if let (Some(user), Some(password)) = (&mail.user, &mail.password) {
        let what = format!("`password` of the channel `{}`", channel.name);
        let password = sender.secrets.get(password, &what).await?;
        builder = builder.credentials(Credentials::new(user.clone(), password));
    }
    Ok(builder.build())
}

async fn parameters(mail: &Mail) -> Result<TlsParameters, Failed> {
    let mut builder = TlsParameters::builder(mail.server.clone());
    if let Some(path) = &mail.ca_file {
        let unusable = |why: String| Failed::lasting(format!("`ca_file` `{}`: {why}", path.display()));
        let pem = tokio::fs::read(path).await.map_err(|error| unusable(error.to_string()))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|error| Failed::lasting(format!("TLS cannot be used: {}", causes(&error))))
}

/// A refusal by the server, and a certificate that is not trusted, stay; everything else may pass.
fn failed(mail: &Mail, error: &Error) -> Failed {
    let server = format!("{}:{}", mail.server, mail.port);
    let error_text = format!("{server}: {}", text::cut(&text::one_line(&causes(error)), 400));
    let certificate = error_text.contains("certificate");
    Failed { passing: !(error.is_permanent() || error.is_client() || certificate), ..Failed::passing(error_text) }
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = next.source();
    }
    text
}
