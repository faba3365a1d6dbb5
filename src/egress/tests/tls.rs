//! https: the certificate is held against the name in the address, whatever was dialled.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::super::tls::Tls;
use super::super::{Egress, Error, Reach};
use super::peer::*;
use crate::config;

/// A server with a certificate for `secure.test` that answers each connection once; its port and root.
fn secure_peer(issuer: &str, answer: String) -> (u16, RootCertStore) {
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["secure.test".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, issuer);
    let cert = params.self_signed(&signing_key).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let server = Arc::new(server);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream =
                StreamOwned::new(ServerConnection::new(server.clone()).unwrap(), stream.unwrap());
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|n| n > 0) {
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.flush();
            }
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    (port, roots)
}

fn trusting(roots: RootCertStore, port: u16) -> Egress {
    let (lookup, _) = rebinding(&[&["127.0.0.1"]], port);
    Egress::with_tls(&config::Egress::default(), true, lookup, Tls::with_roots(roots)).unwrap()
}

#[tokio::test]
async fn a_trusted_certificate_for_the_name_is_accepted_and_for_another_is_not() {
    let (port, roots) = secure_peer("one", OK.to_owned());
    let egress = trusting(roots, port);
    let response = send(&egress, Reach::Configured, "https://secure.test/").await.unwrap();
    assert_eq!(response.status(), 200);
    for uri in ["https://other.test/".to_owned(), format!("https://127.0.0.1:{port}/")] {
        let refused = send(&egress, Reach::Configured, &uri).await.unwrap_err();
        assert!(matches!(refused, Error::Tls { .. }), "{refused:?}");
        assert!(refused.to_string().ends_with("its certificate is for another name"), "{refused}");
        assert!(refused.is_before_sending());
    }
}

#[tokio::test]
async fn an_unknown_issuer_is_refused() {
    let (port, _) = secure_peer("one", OK.to_owned());
    let (_, other_roots) = secure_peer("another", OK.to_owned());
    let refused = send(&trusting(other_roots, port), Reach::Configured, "https://secure.test/").await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("issued by nobody this machine trusts"), "{refused}");
}

#[tokio::test]
async fn https_is_never_left_for_plain_http() {
    let plain = Peer::on("127.0.0.1", OK).await;
    let away = format!("HTTP/1.1 307 x\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", plain.url("/"));
    let (port, roots) = secure_peer("one", away);
    let stopped = follow(&trusting(roots, port), Reach::Configured, get("https://secure.test/")).await;
    assert_eq!(stopped.unwrap_err().to_string(), "secure.test redirects from https to plain http");
    assert_eq!(plain.connections(), 0);
}
