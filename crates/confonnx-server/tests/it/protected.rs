//! Encrypted models: locked until their owner gives the key, which no file ever holds.

use std::fs;

use confonnx_attest::{Digest, Expectations, Policy};
use confonnx_client::{Client, ClientError, Options};
use confonnx_model::encrypted::{self, ModelKey, OwnerKey, OwnerPublicKey};
use confonnx_server::models::{self, LoadError, Models, OpenError};
use confonnx_tensor::{DataType, Shape, Tensor};

use crate::harness::{Running, config, engine, head, model, start_with};

pub(crate) struct Protected {
    pub(crate) key: ModelKey,
    pub(crate) digests: encrypted::Digests,
    folder: tempfile::TempDir,
}

impl Protected {
    pub(crate) fn new() -> Self {
        let (key, folder) = (ModelKey::generate().unwrap(), tempfile::tempdir().unwrap());
        let file = fs::File::create(folder.path().join("mlp.onnx.age")).unwrap();
        let digests = encrypted::encrypt(&key, fs::File::open(model("mlp")).unwrap(), file).unwrap();
        Self { key, digests, folder }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("mlp.onnx.age")
    }

    async fn start(&self) -> Running {
        start_with(config("mlp", |settings| {
            settings.model_path = Some(self.path());
            settings.use_model_key_provisioning = Some(true);
        }))
        .await
    }
}

pub(crate) fn client(server: &Running, model_hash: [u8; 32]) -> Client {
    let expected = Expectations::new().allow_debug(true).model_hash(Digest(model_hash).into());
    Client::new(&server.url(), Policy::new(expected).unwrap(), Options::default()).unwrap()
}

pub(crate) async fn predict(client: &Client) -> Result<Vec<(String, Tensor<'static>)>, ClientError> {
    let info = models::load(&config("mlp", |_| {}), engine()).unwrap();
    let input = &info.model.inputs()[0];
    let dims = input.shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect::<Vec<_>>();
    let shape = Shape::new(dims).unwrap();
    let data = vec![0; shape.elements() * 4];
    assert_eq!(input.dtype, DataType::Fp32);
    let tensor = Tensor::new(DataType::Fp32, shape, data).unwrap();
    client.infer(None, vec![(input.name.clone(), tensor)], &[]).await
}

pub(crate) fn inner_code(err: ClientError) -> (u16, String) {
    match err {
        ClientError::Inner { status, code, .. } => (status, code),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_locked_model_answers_after_its_owner_gave_the_key() {
    let protected = Protected::new();
    let server = protected.start().await;
    let owner = client(&server, protected.digests.ciphertext);
    let claims = owner.attest().await.unwrap().claims().models.clone();
    assert_eq!((claims[0].name.as_str(), claims[0].sha256), ("mlp", None));
    assert_eq!(inner_code(predict(&owner).await.unwrap_err()), (503, "model-locked".into()));
    assert!(!owner.ready().await.unwrap());
    assert!(owner.metadata(None).await.is_err());
    // A load balancer sends people here all the same: else the owner could not get here.
    assert_eq!(server.app.trouble(), None);

    let claim = owner.provision_model_key(None, &protected.key, None).await.unwrap();
    assert_eq!(claim.sha256, Some(Digest(protected.digests.plaintext)));
    assert!(owner.ready().await.unwrap());
    let answer = predict(&owner).await.unwrap();
    // Clients pin the hash of the plain model as ever, and get the plain model's answer.
    let user = client(&server, protected.digests.plaintext);
    assert_eq!(predict(&user).await.unwrap(), answer);
    let plain = start_with(config("mlp", |_| {})).await;
    assert_eq!(predict(&client(&plain, protected.digests.plaintext)).await.unwrap(), answer);
    let claims = user.attest().await.unwrap().claims().models.clone();
    assert_eq!(claims[0].ciphertext_sha256, Some(Digest(protected.digests.ciphertext)));
}

#[tokio::test]
async fn a_model_with_external_data_is_served_from_its_encrypted_file_alone() {
    let (key, folder) = (ModelKey::generate().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("external.onnx.age");
    let digests = encrypted::encrypt_file(&key, &model("external"), &path).unwrap();
    let server = start_with(config("external", |settings| {
        settings.model_path = Some(path.clone());
        settings.use_model_key_provisioning = Some(true);
    }))
    .await;
    let owner = client(&server, digests.ciphertext);
    let claim = owner.provision_model_key(None, &key, None).await.unwrap();
    let hash = confonnx_model::model_hash(&model("external")).unwrap();
    assert_eq!((claim.sha256, digests.plaintext), (Some(Digest(hash)), hash));
    let ones =
        Tensor::new(DataType::Fp32, Shape::new(vec![4]).unwrap(), 1_f32.to_le_bytes().repeat(4)).unwrap();
    let answer = client(&server, hash).infer(None, vec![("x".into(), ones)], &[]).await.unwrap();
    let expected: Vec<u8> = [1_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(answer[0].1.data(), expected);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["external.onnx.age"], "nothing is written");
}

#[tokio::test]
async fn data_that_the_model_does_not_name_is_refused() {
    let (key, folder) = (ModelKey::generate().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("external.onnx.age");
    // The encrypted file has the model alone, without the data that it names.
    encrypted::encrypt(&key, fs::File::open(model("external")).unwrap(), fs::File::create(&path).unwrap())
        .unwrap();
    let server = start_with(config("external", |settings| {
        settings.model_path = Some(path.clone());
        settings.use_model_key_provisioning = Some(true);
    }))
    .await;
    let answer = server.ask(&head("POST", "/v2/models/external/key"), key.expose().as_bytes()).await;
    assert_eq!(answer.error(), (500, "model-unusable".into()));
    assert!(answer.json()["error"].as_str().unwrap().contains("external.bin"));
}

#[tokio::test]
async fn a_wrong_key_leaves_it_waiting_and_a_second_key_is_refused() {
    let protected = Protected::new();
    let server = protected.start().await;
    let owner = client(&server, protected.digests.ciphertext);
    let wrong = ModelKey::generate().unwrap();
    let err = owner.provision_model_key(None, &wrong, None).await.unwrap_err();
    assert!(!err.to_string().contains(&wrong.expose()[17..]), "{err}");
    assert_eq!(inner_code(err), (400, "model-key-invalid".into()));
    let answer = server.ask(&head("POST", "/v2/models/mlp/key"), b"not a key").await;
    assert_eq!(answer.error(), (400, "model-key-invalid".into()));
    assert!(!owner.ready().await.unwrap());
    owner.provision_model_key(None, &protected.key, None).await.unwrap();
    let err = owner.provision_model_key(None, &protected.key, None).await.unwrap_err();
    assert_eq!(inner_code(err), (409, "model-not-locked".into()));
    assert!(predict(&owner).await.is_ok());
}

#[tokio::test]
async fn of_several_keys_at_once_one_is_taken() {
    let protected = Protected::new();
    let server = protected.start().await;
    let owner = client(&server, protected.digests.ciphertext);
    let tries = [(); 4].map(|()| owner.provision_model_key(None, &protected.key, None));
    let [a, b, c, d] = tries;
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    assert_eq!([a, b, c, d].iter().filter(|found| found.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_file_exchanged_after_the_start_is_not_opened() {
    let protected = Protected::new();
    let server = protected.start().await;
    let owner = client(&server, protected.digests.ciphertext);
    owner.attest().await.unwrap();
    // The host knows the recipient of the model's key, so it can encrypt a model of its own to it.
    let other = fs::File::create(protected.path()).unwrap();
    encrypted::encrypt(&protected.key, fs::File::open(model("mlp")).unwrap(), other).unwrap();
    let err = owner.provision_model_key(None, &protected.key, None).await.unwrap_err();
    assert_eq!(inner_code(err), (500, "model-unusable".into()));
    assert!(!owner.ready().await.unwrap());
}

/// Key pairs made by openssl, which implements neither end.
fn owner_keys(folder: &std::path::Path) -> (OwnerKey, std::path::PathBuf) {
    let (private, public) = (folder.join("owner"), folder.join("owner.pub"));
    let openssl = |arguments: &[&str]| {
        assert!(std::process::Command::new("openssl").args(arguments).status().unwrap().success());
    };
    let (private_path, public_path) = (private.to_str().unwrap(), public.to_str().unwrap());
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", private_path]);
    openssl(&["pkey", "-pubout", "-in", private_path, "-out", public_path]);
    (OwnerKey::from_pem(&fs::read_to_string(&private).unwrap()).unwrap(), public)
}

#[tokio::test]
async fn with_an_owner_named_the_key_alone_is_not_enough() {
    let protected = Protected::new();
    let (owner_key, public) = owner_keys(protected.folder.path());
    let other = tempfile::tempdir().unwrap();
    let (stranger, _) = owner_keys(other.path());
    let fingerprint = OwnerPublicKey::from_pem(&fs::read_to_string(&public).unwrap()).unwrap().fingerprint();
    let server = start_with(config("mlp", |settings| {
        settings.model_path = Some(protected.path());
        settings.use_model_key_provisioning = Some(true);
        settings.model_owner_key_file = Some(public);
    }))
    .await;
    let client = client(&server, protected.digests.ciphertext);
    let claims = client.attest().await.unwrap().claims().settings["model_owner_sha256"].clone();
    assert_eq!(claims, Digest(fingerprint).to_string());
    for signer in [None, Some(&stranger)] {
        let err = client.provision_model_key(None, &protected.key, signer).await.unwrap_err();
        assert_eq!(inner_code(err), (403, "owner-signature-invalid".into()));
    }
    client.provision_model_key(None, &protected.key, Some(&owner_key)).await.unwrap();
    assert!(predict(&client).await.is_ok());
}

#[test]
fn encryption_and_the_setting_have_to_agree() {
    let protected = Protected::new();
    let open = |path: std::path::PathBuf, provisioning| {
        let config = config("mlp", |settings| {
            settings.model_path = Some(path);
            settings.use_model_key_provisioning = Some(provisioning);
        });
        match Models::open(&config, engine()) {
            Err(OpenError::Model { source, .. }) => source,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("opened"),
        }
    };
    assert!(matches!(open(protected.path(), false), LoadError::Encrypted));
    assert!(matches!(open(model("mlp"), true), LoadError::NotEncrypted));
}
