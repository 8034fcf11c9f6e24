//! Configures a broker with two additional listeners: one with TLS, and one with TLS and SASL. It
//! has a certificate of its own, and one user who can log in with every mechanism.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{Broker, free_port, tools};

/// The name of the user who can log in.
pub const USER: &str = "lantern";
/// The password of the user who can log in.
pub const PASSWORD: &str = "wick-and-oil";
/// The password of the broker's key store.
const STORE_PASSWORD: &str = "of-the-store";
/// The SASL mechanisms that clients may use.
pub const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// The ports of the additional listeners.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secured {
    tls: u16,
    sasl: u16,
}

impl Secured {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { tls: free_port()?, sasl: free_port()? })
    }

    /// Creates the broker's key and certificate in `folder`, and adds the settings for them to
    /// `all`.
    pub(crate) fn configure(self, folder: &Path, all: &mut BTreeMap<String, String>) -> Result<()> {
        let store = folder.join("broker.p12");
        if !store.exists() {
            keytool(
                &store,
                &["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1"],
                &[
                    "-dname",
                    "CN=localhost",
                    "-ext",
                    "san=dns:localhost",
                    "-validity",
                    "3650",
                    "-storetype",
                    "PKCS12",
                ],
            )?;
            let certificate = folder.join("broker.pem");
            keytool(&store, &["-exportcert", "-rfc"], &["-file", &certificate.to_string_lossy()])?;
        }
        let mut add = |listed: &str, more: String| {
            let value = all.entry(listed.into()).or_default();
            *value = format!("{value},{more}");
        };
        let listeners = format!("SSL://localhost:{},SASL_SSL://localhost:{}", self.tls, self.sasl);
        add("listeners", listeners.clone());
        add("advertised.listeners", listeners);
        add("listener.security.protocol.map", "SSL:SSL,SASL_SSL:SASL_SSL".into());
        let module = "org.apache.kafka.common.security";
        let settings = [
            ("ssl.keystore.location", store.display().to_string()),
            ("ssl.keystore.password", STORE_PASSWORD.into()),
            ("ssl.keystore.type", "PKCS12".into()),
            ("sasl.enabled.mechanisms", MECHANISMS.join(",")),
            (
                "listener.name.sasl_ssl.plain.sasl.jaas.config",
                format!("{module}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"),
            ),
            (
                "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config",
                format!("{module}.scram.ScramLoginModule required;"),
            ),
            (
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config",
                format!("{module}.scram.ScramLoginModule required;"),
            ),
            // The broker accepts tokens without a signature, because the tests are about the
            // client.
            (
                "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config",
                format!("{module}.oauthbearer.OAuthBearerLoginModule required;"),
            ),
            (
                "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class",
                format!(
                    "{module}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
                ),
            ),
        ];
        all.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        Ok(())
    }

    /// Returns the users that the broker stores when it formats its storage.
    pub(crate) fn users() -> Vec<String> {
        let user = |mechanism| {
            ["--add-scram".into(), format!("{mechanism}=[name={USER},password={PASSWORD}]")]
        };
        ["SCRAM-SHA-256", "SCRAM-SHA-512"].into_iter().flat_map(user).collect()
    }
}

impl Broker {
    /// Returns the address of the listener with TLS: `localhost:PORT`. `None` if
    /// [`crate::Options::secured`] is `false`.
    #[must_use]
    pub fn tls_address(&self) -> Option<String> {
        self.secured.map(|secured| format!("localhost:{}", secured.tls))
    }

    /// Returns the address of the listener with TLS and SASL. It accepts all of [`MECHANISMS`].
    #[must_use]
    pub fn sasl_address(&self) -> Option<String> {
        self.secured.map(|secured| format!("localhost:{}", secured.sasl))
    }

    /// Returns the path of the broker's self-signed certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder().join("broker.pem")
    }
}

/// Runs the JDK's `keytool` as a module of `java`, which the broker needs anyway.
fn keytool(store: &Path, act: &[&str], more: &[&str]) -> Result<()> {
    let mut tool = Command::new("java");
    tool.args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    tool.args(["-m", "java.base/sun.security.tools.keytool.Main"]).args(act);
    tool.args(["-alias", "broker", "-storepass", STORE_PASSWORD, "-keystore"]).arg(store);
    tools::answer(tool.args(more).stdin(Stdio::null())).map(drop)
}
