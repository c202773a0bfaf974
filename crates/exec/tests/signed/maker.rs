//! Makes keys, certificates, signatures and entries of a log, as those do whose signatures are checked.

use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pitcrew_exec::signed::Trust;
use pitcrew_exec::signed::policy::PublicKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Who vouches for people.
pub const PROVIDER: &str = "https://login.example.com";

/// An authority with a root and one below it, a log, and whoever has a key.
pub struct Maker(tempfile::TempDir);

/// A certificate with its key.
pub struct Leaf {
    name: String,
    /// Since when it is good, in seconds since 1970.
    pub from: u64,
}

#[derive(Clone)]
pub struct Signature {
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    pub certificate: Option<String>,
    pub chain: Option<String>,
    pub bundle: Option<String>,
}

impl Maker {
    pub fn new() -> Maker {
        let maker = Maker(tempfile::tempdir().unwrap());
        maker.key("log");
        // As sigstore's: a root with P-384, one below it, and P-256 for who signs.
        maker.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "root.key"]);
        let root = ["-subj", "/O=example/CN=root", "-addext", "keyUsage=critical,keyCertSign"];
        maker.openssl(
            &[&["req", "-x509", "-new", "-key", "root.key", "-days", "3650", "-out", "root.pem"], &root[..]].concat(),
        );
        maker.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "between.key"]);
        let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\nextendedKeyUsage=codeSigning,serverAuth\n";
        maker.certificate("between", "/O=example/CN=between", "root", extensions);
        maker
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn openssl(&self, args: &[&str]) -> Vec<u8> {
        let out = Command::new("openssl").args(args).current_dir(self.0.path()).output().unwrap();
        assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// The public half.
    pub fn key(&self, name: &str) -> String {
        let (key, public) = (format!("{name}.key"), format!("{name}.pub"));
        self.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
        self.openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
        self.read(&public)
    }

    fn certificate(&self, name: &str, subject: &str, by: &str, extensions: &str) {
        let [key, request, out, wanted] = ["key", "csr", "pem", "ext"].map(|end| format!("{name}.{end}"));
        let [ca, ca_key] = ["pem", "key"].map(|end| format!("{by}.{end}"));
        std::fs::write(self.path(&wanted), extensions).unwrap();
        self.openssl(&["req", "-new", "-key", &key, "-subj", subject, "-out", &request]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "1",
            "-sha384",
            "-extfile",
            &wanted,
            "-out",
            &out,
        ]);
    }

    /// `names`: whom it is for, as `openssl` writes it.
    pub fn leaf(&self, name: &str, names: &str) -> Leaf {
        self.leaf_for(name, names, "codeSigning")
    }

    pub fn leaf_for(&self, name: &str, names: &str, usage: &str) -> Leaf {
        self.key(name);
        let plain: String = PROVIDER.bytes().map(|byte| format!("{byte:02x}")).collect();
        let extensions = format!(
            "keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\nsubjectAltName=critical,{names}\n\
             1.3.6.1.4.1.57264.1.1=DER:{plain}\n1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:{PROVIDER}\n"
        );
        self.certificate(name, "/", "between", &extensions);
        let told = self.openssl(&["x509", "-in", &format!("{name}.pem"), "-noout", "-startdate"]);
        let told = String::from_utf8(told).unwrap();
        let told = told.trim().trim_start_matches("notBefore=").trim_end_matches(" GMT");
        let from = jiff::civil::DateTime::strptime("%b %e %H:%M:%S %Y", told).unwrap();
        let from = from.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
        Leaf { name: name.to_owned(), from: from.try_into().unwrap() }
    }

    /// What those believe who believe this authority and this log.
    pub fn trust(&self) -> Trust {
        let mut trust = Trust::default();
        trust.add_roots(&self.read("root.pem")).unwrap();
        trust.logs.push(PublicKey::from_pem(&self.read("log.pub")).unwrap());
        trust
    }

    fn sign(&self, key: &str, message: &[u8]) -> Vec<u8> {
        std::fs::write(self.path("message"), message).unwrap();
        self.openssl(&["dgst", "-sha256", "-sign", &format!("{key}.key"), "message"])
    }

    /// By somebody with this key.
    pub fn signature(&self, key: &str, digest: &str) -> Signature {
        let payload = json!({
            "critical": { "identity": { "docker-reference": "" }, "image": { "docker-manifest-digest": digest },
                          "type": "cosign container image signature" },
            "optional": null });
        let payload = payload.to_string().into_bytes();
        let signature = self.sign(key, &payload);
        Signature { payload, signature, certificate: None, chain: None, bundle: None }
    }

    /// By whoever this certificate is for, while it is good.
    pub fn keyless(&self, leaf: &Leaf, digest: &str) -> Signature {
        let mut signature = self.signature(&leaf.name, digest);
        signature.certificate = Some(self.read(&format!("{}.pem", leaf.name)));
        signature.chain = Some(self.read("between.pem") + &self.read("root.pem"));
        signature.bundle = Some(self.bundle(&signature, leaf.from));
        signature
    }

    /// What the log says when it has written this down then.
    pub fn bundle(&self, signature: &Signature, at: u64) -> String {
        let hash: String = Sha256::digest(&signature.payload).iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord",
            "spec": { "data": { "hash": { "algorithm": "sha256", "value": hash } },
                      "signature": { "content": STANDARD.encode(&signature.signature),
                                     "publicKey": { "content": STANDARD.encode(signature.certificate.as_ref().unwrap()) } } } });
        let body = STANDARD.encode(body.to_string());
        let log = PublicKey::from_pem(&self.read("log.pub")).unwrap().id;
        // The log signs it by the order of its keys and without spaces.
        let told = format!(r#"{{"body":"{body}","integratedTime":{at},"logID":"{log}","logIndex":7}}"#);
        let by_log = STANDARD.encode(self.sign("log", told.as_bytes()));
        let payload: Value = json!({ "logIndex": 7, "body": body, "integratedTime": at, "logID": log });
        json!({ "SignedEntryTimestamp": by_log, "Payload": payload }).to_string()
    }
}
