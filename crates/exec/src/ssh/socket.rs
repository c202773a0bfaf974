//! Sockets of a host that are reached from here.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{Fault, LinkError, clean};
use super::pool::Pool;
use super::slot::Hold;
use crate::place::SshPlace;

/// How long a host may take to open one.
const PATIENCE: Duration = Duration::from_secs(20);

/// A way to a socket of a host. Its connection lasts as long as it does.
pub struct Socket<S> {
    pub stream: S,
    _hold: Hold,
}

impl Pool {
    /// Opens a socket of the host, by its path there.
    ///
    /// # Errors
    /// [`LinkError::NoForward`] if there is none, nobody listens, or its sshd does not let anybody: these look the same from here.
    pub async fn socket(
        &self,
        place: &SshPlace,
        path: &str,
    ) -> Result<Socket<impl AsyncRead + AsyncWrite + Unpin + Send + use<>>, LinkError> {
        let host = place.to_string();
        let hold = self.hold(place).await?;
        let asked = hold.connection().handle().channel_open_direct_streamlocal(path);
        let lost = |why: &str| {
            LinkError::Dial(
                Fault::Broke { host: host.clone(), stage: "the opening of a socket", why: why.to_owned() }.into(),
            )
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(channel)) => Ok(Socket { stream: channel.into_stream(), _hold: hold }),
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => {
                let why = format!(
                    "nobody answers there at `{}`: does it run, may this user use it, and does `AllowStreamLocalForwarding` of sshd let anybody?",
                    clean(path)
                );
                Err(LinkError::NoForward { host, why })
            }
            Ok(Err(error)) => Err(lost(&clean(&error.to_string()))),
            Err(_) => Err(lost("it does not answer")),
        }
    }
}
