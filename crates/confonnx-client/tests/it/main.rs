//! The client against a server in this process that can misbehave.

#![allow(clippy::restriction, reason = "a test may panic")]

mod attestation;
mod conversation;
mod exchange;
mod fake;
mod proxies;
mod resumption;

use confonnx_attest::merkle::Tree;
use confonnx_attest::produce::Attester;
use confonnx_attest::{Digest, Document, report_data};
use confonnx_client::{Client, ClientError, DataType, Expectations, Options, Policy, Shape, Tensor};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;

use fake::Fake;

fn client(server: &Fake) -> Client {
    client_with(server, Options::default())
}

fn client_with(server: &Fake, options: Options) -> Client {
    Client::new(&server.url(), policy(), options).unwrap()
}

fn policy() -> Policy {
    Policy::new(Expectations::new().allow_debug(true)).unwrap()
}

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// The attestation document of the insecure TEE for the only nonce of `tree`.
fn document(key_configs: &[u8], claims: &[u8], tree: &Tree) -> Vec<u8> {
    let bound = report_data(&tree.root(), key_configs, claims);
    let evidence = Attester::insecure(Digest([0xe1; 32])).evidence(&bound).unwrap();
    Document::new(key_configs.to_vec(), claims.to_vec(), evidence, tree.root(), tree.proof(0)).to_json()
}

/// What the fake server echoes.
fn input() -> Vec<(String, Tensor<'static>)> {
    let tensor =
        Tensor::new(DataType::Fp32, Shape::new([2]).unwrap(), vec![0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    vec![("x".into(), tensor)]
}

async fn echo(client: &Client) -> Result<(), ClientError> {
    let outputs = client.infer(None, input(), &[]).await?;
    assert_eq!(outputs, input());
    Ok(())
}
