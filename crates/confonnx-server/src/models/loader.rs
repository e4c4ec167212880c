//! From a model's files to one that runs.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use confonnx_attest::{Digest, ModelClaim};
use confonnx_engine::{
    Batching, Engine, LoadedModel, ModelOptions, NotBatched, Stop, TensorInfo, names_a_decoder, width_is_free,
};
use confonnx_model::{
    ClassLabels, Dim, HashError, ModelInfo, data_files,
    encrypted::{self, ModelKey, OpenedModel, OwnerPublicKey, open_model},
    hash_files, runnable,
    triton::{ModelConfig, TensorConfig, Warmup},
};
use confonnx_protocol::oip::{MAX_NAME, MAX_TENSORS, ModelMetadata, TensorMetadata};
use confonnx_tensor::{DataType, Erased, Shape, Tensor};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::{
    error::{LoadError, UnlockError},
    place::Place,
    slot::{Locked, Served, Slot},
};
use crate::{
    config::{Config, ModelSource},
    embedding::Embedder,
    generation::Generator,
    sequences::Sequences,
};

/// What it takes to load any model.
pub(super) struct Loader {
    engine: Engine,
    sessions: usize,
    threads_per_session: Option<usize>,
    /// How long a run may take.
    timeout: Duration,
    keys: KeysExpected,
    pub(super) owner: Option<OwnerPublicKey>,
}

/// The keys that the owner brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeysExpected {
    /// No model is encrypted.
    None,
    /// The keys of the models that are encrypted.
    Some,
    /// The key of the only model, which has to be encrypted.
    All,
}

impl Loader {
    pub(super) fn new(config: &Config, engine: &Engine, owner: Option<OwnerPublicKey>) -> Self {
        let keys = match (&config.models, config.use_model_key_provisioning) {
            (_, false) => KeysExpected::None,
            (ModelSource::File { .. }, true) => KeysExpected::All,
            (ModelSource::Repository { .. }, true) => KeysExpected::Some,
        };
        let (sessions, threads_per_session) = (config.sessions, config.threads_per_session);
        let timeout = config.inference_timeout;
        Self { engine: engine.clone(), sessions, threads_per_session, timeout, keys, owner }
    }

    /// Loads a model, unless it is encrypted: then it is locked.
    ///
    /// A plain model is read once: what is hashed is what runs. An encrypted one is read again when its key comes,
    /// and refused if it is not the same then.
    pub(super) fn open(&self, place: &Place) -> Result<Slot, LoadError> {
        if place.path.is_dir() {
            return Err(LoadError::Folder);
        }
        let read = |source| LoadError::Read { file: file_name(&place.path), source };
        let mut file = File::open(&place.path).map_err(read)?;
        let len = usize::try_from(file.metadata().map_err(read)?.len()).unwrap_or(usize::MAX);
        let mut head = Vec::new();
        file.by_ref().take(64).read_to_end(&mut head).map_err(read)?;
        match (encrypted::is_encrypted(&head), self.keys) {
            (true, KeysExpected::None) => Err(LoadError::Encrypted),
            (false, KeysExpected::All) => Err(LoadError::NotEncrypted),
            (false, KeysExpected::None | KeysExpected::Some) => {
                let mut onnx = Vec::new();
                // Does not move while it is read, so it leaves no copy behind.
                let reserved = onnx.try_reserve_exact(len.saturating_add(1));
                reserved.map_err(|_| read(io::ErrorKind::OutOfMemory.into()))?;
                onnx.extend_from_slice(&head);
                file.read_to_end(&mut onnx).map_err(read)?;
                self.load_plain(place, &Erased::from(onnx)).map(|served| Slot::Serving(Box::new(served)))
            }
            (true, KeysExpected::Some | KeysExpected::All) => {
                let mut hash = Sha256::new_with_prefix(&head);
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match file.read(&mut buffer).map_err(read)? {
                        0 => break,
                        n => hash.update(buffer.get(..n).unwrap_or_default()),
                    }
                }
                Ok(Slot::Locked(Locked { place: place.clone(), ciphertext: Digest(hash.finalize().into()) }))
            }
        }
    }

    /// Loads an encrypted model with its key, which its owner signed if that is asked for.
    pub(super) fn unlock(
        &self,
        locked: &Locked,
        key: &ModelKey,
        signature: &[u8],
    ) -> Result<Served, UnlockError> {
        if let Some(owner) = &self.owner {
            owner.verify(&locked.ciphertext.0, key, signature)?;
        }
        let path = &locked.place.path;
        let read = |source: io::Error| LoadError::Read { file: file_name(path), source };
        let file = File::open(path).map_err(read)?;
        let len = usize::try_from(file.metadata().map_err(read)?.len()).unwrap_or(usize::MAX);
        let opened = open_model(key, file, len)?;
        let found = Digest(opened.ciphertext);
        if found != locked.ciphertext {
            return Err(UnlockError::Changed { expected: locked.ciphertext, found });
        }
        Ok(self.load_encrypted(&locked.place, opened)?)
    }

    /// Loads `onnx`, the content of the model's file, with the data files beside it.
    fn load_plain(&self, place: &Place, onnx: &[u8]) -> Result<Served, LoadError> {
        let info = ModelInfo::parse(onnx)?;
        let data = |(location, path): (String, PathBuf)| match std::fs::read(path) {
            Ok(bytes) => Ok((location, Erased::new(Arc::from(bytes)))),
            Err(source) => Err(LoadError::Read { file: location, source }),
        };
        let files = data_files(&place.path, &info.external_data).map_err(|error| missing(place, error))?;
        self.load(place, onnx, &info, files.into_iter().map(data).collect::<Result<_, _>>()?, None)
    }

    /// Loads a model that was stored encrypted, with the data files that came with it.
    fn load_encrypted(&self, place: &Place, opened: OpenedModel) -> Result<Served, LoadError> {
        let OpenedModel { onnx, external, ciphertext } = opened;
        let info = ModelInfo::parse(&onnx)?;
        if !external.iter().map(|(name, _)| name).eq(&info.external_data) {
            let found = external.into_iter().map(|(name, _)| name).collect();
            return Err(LoadError::EncryptedData { expected: info.external_data, found });
        }
        // Files are copied one by one, and the first copy of each is erased before the next.
        let data = external.into_iter().map(|(name, bytes)| (name, Erased::new(Arc::from(&bytes[..]))));
        self.load(place, &onnx, &info, data.collect(), Some(Digest(ciphertext)))
    }

    fn load(
        &self,
        place: &Place,
        onnx: &[u8],
        info: &ModelInfo,
        data: Vec<(String, SharedBytes)>,
        ciphertext: Option<Digest>,
    ) -> Result<Served, LoadError> {
        let config = &place.config;
        let digest =
            |(location, bytes): &(String, SharedBytes)| (location.clone(), Sha256::digest(&***bytes).into());
        let digests: BTreeMap<_, _> = data.iter().map(digest).collect();
        info.check_names(MAX_TENSORS, MAX_NAME)?;
        let encoder = encoder(info, &data)?;
        // The file is shared under each name that the model has for it.
        let share = |(spelling, location): (&String, &String)| {
            let (_, bytes) = data.iter().find(|(found, _)| found == location)?;
            Some((spelling.clone(), Arc::clone(bytes)))
        };
        // A language model answers all callers in turns, and remembers what it read in one place.
        let in_turns = names_a_decoder(info.inputs.iter().map(|input| input.name.as_str()));
        let sessions = if in_turns { 1 } else { config.instances.unwrap_or(self.sessions) };
        let batch =
            if in_turns { info.rows.is_some().then(|| Ok(together())) } else { batching(config, info) };
        if let Some(Err(reason)) = &batch {
            warn!("{}: requests are not batched: {reason}", place.name);
        }
        let options = ModelOptions {
            sessions: sessions.max(1),
            threads_per_session: self.threads_per_session,
            external_data: info.spellings.iter().filter_map(share).collect(),
            encoder,
            batch: batch.and_then(Result::ok),
            free_width: width_is_free(info.operators.iter().map(String::as_str), is_fixed(info)),
        };
        let runs = Erased::new(runnable(onnx)?);
        let timeout = config.inference_timeout_s.map_or(self.timeout, Duration::from_secs);
        let loaded = self.engine.load(&place.name, &runs, &options, timeout);
        drop(runs);
        // The options go before `data`, which is erased only if nobody else has it.
        drop(options);
        let model = Arc::new(loaded?);
        let arrangement = model.arrangement();
        info!("{}: {arrangement}", place.name);
        match model.largest_batch() {
            Ok(1) => {}
            Ok(rows) => info!(
                "{}: requests are batched, up to {rows} rows, as its owner states that rows are independent",
                place.name
            ),
            Err(reason) => warn!("{}: requests are not batched: {reason}", place.name),
        }
        check(config, "input", &config.inputs, model.inputs())?;
        check(config, "output", &config.outputs, model.outputs())?;
        for request in &config.warmup {
            warm_up(&model, request, config.max_batch_size > 0)?;
        }
        let together = model.largest_batch().ok().filter(|rows| *rows > 1);
        let mut parameters = Map::from_iter([("arrangement".to_owned(), arrangement.to_string().into())]);
        if let Some(rows) = together {
            parameters.insert("max_batched_rows".into(), rows.into());
        }
        // Optional inputs are not among the inputs, all of which callers give.
        let optional = model.optional_inputs().iter();
        let optional: Vec<Value> = optional
            .map(|info| json!({"name": info.name, "datatype": info.dtype.name(), "shape": info.shape}))
            .collect();
        if !optional.is_empty() {
            parameters.insert("optional_inputs".into(), optional.into());
        }
        let sequences = Sequences::of(&model, info);
        if let Some(sequences) = &sequences {
            parameters.insert("state".into(), sequences.told().into());
        }
        let outputs = model.outputs().iter().map(|output| {
            let labels = info.class_labels.get(&output.name).map(|labels| match labels {
                ClassLabels::Integers(labels) => labels.clone().into(),
                ClassLabels::Strings(labels) => labels.clone().into(),
            });
            tensor_metadata(
                output,
                labels.map(|labels: Value| ("class_labels".to_owned(), labels)).into_iter().collect(),
            )
        });
        let metadata = ModelMetadata {
            name: place.name.clone(),
            versions: vec![place.version.to_string()],
            platform: "onnxruntime_onnx".into(),
            inputs: model.inputs().iter().map(|input| tensor_metadata(input, Map::new())).collect(),
            outputs: outputs.collect(),
            parameters,
        };
        let claim = ModelClaim {
            name: place.name.clone(),
            version: place.version.to_string(),
            sha256: Some(Digest(hash_files(onnx, &digests))),
            ciphertext_sha256: ciphertext,
            batching: together.map(|rows| rows as u64),
        };
        let generator = Generator::of(&place.name, &model, info)?;
        let embedder = Embedder::of(&model, info)?.map(Arc::new);
        Ok(Served { model, generator, embedder, sequences, claim, metadata })
    }
}

/// The encoder among the model's files, if its owner names one: it has to fit, and a model that answers to text needs it.
fn encoder(info: &ModelInfo, data: &[(String, SharedBytes)]) -> Result<Option<Arc<[u8]>>, LoadError> {
    let Some(file) = &info.encoder else {
        let answers = info.needs_encoder() && info.text.contains_key("tokenizer.json");
        return if answers { Err(LoadError::NoEncoder) } else { Ok(None) };
    };
    let found = data.iter().find(|(location, _)| location == file);
    let (_, bytes) = found.ok_or(LoadError::NoEncoder)?;
    let encoder = ModelInfo::parse(bytes)
        .map_err(|source| LoadError::EncoderModel { file: file.clone(), source: source.into() })?;
    info.check_encoder(&encoder).map_err(|source| LoadError::Encoder { file: file.clone(), source })?;
    Ok(Some(Arc::clone(bytes)))
}

/// How requests are batched, if the host wants them to be: only the owner can say, inside the model, that no caller's data
/// meets another's.
fn batching(config: &ModelConfig, info: &ModelInfo) -> Option<Result<Batching, NotBatched>> {
    let dynamic = config.dynamic_batching.as_ref().filter(|_| config.max_batch_size > 1)?;
    let Some(rows) = &info.rows else { return Some(Err(NotBatched::NotStated)) };
    let size = |size: &u32| usize::try_from(*size).unwrap_or(usize::MAX);
    Some(Ok(Batching {
        max_batch_size: size(&config.max_batch_size),
        preferred: dynamic.preferred_batch_size.iter().map(size).collect(),
        max_delay: Duration::from_micros(dynamic.max_queue_delay_us),
        axis: rows.axis,
        other_axes: rows.other_axes.clone(),
    }))
}

/// How a language model's callers go on in one run, if its owner states that none meets another's data there.
fn together() -> Batching {
    Batching {
        max_batch_size: TOGETHER,
        preferred: Vec::new(),
        max_delay: Duration::ZERO,
        axis: 0,
        other_axes: Vec::new(),
    }
}

/// Whether every input is of reals and of one shape.
fn is_fixed(info: &ModelInfo) -> bool {
    let is_real = |dtype| matches!(dtype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64);
    info.optional_inputs.is_empty()
        && info.inputs.iter().all(|input| {
            let fixed = |shape: &Vec<Dim>| shape.iter().all(|dim| matches!(dim, Dim::Fixed(_)));
            is_real(input.dtype) && input.shape.as_ref().is_some_and(fixed)
        })
}

/// Compares what the configuration says of tensors with what the model has. A dimension that is any size in the model may
/// be said to be of one size.
fn check(
    config: &ModelConfig,
    kind: &'static str,
    said: &[TensorConfig],
    has: &[TensorInfo],
) -> Result<(), LoadError> {
    for tensor in said {
        let mut dims = tensor.dims.clone();
        if config.max_batch_size > 0 {
            dims.insert(0, -1);
        }
        let model = has.iter().find(|info| info.name == tensor.name);
        let fits = model.is_some_and(|info| {
            let same = |(model, said): (&i64, &i64)| *model == -1 || model == said;
            let batched = config.max_batch_size == 0 || info.shape.first() == Some(&-1);
            info.dtype == tensor.dtype
                && info.shape.len() == dims.len()
                && info.shape.iter().zip(&dims).all(same)
                && batched
        });
        if !fits {
            let list = has.iter().map(|info| format!("{} {} {:?}", info.name, info.dtype, info.shape));
            let expected = list.collect::<Vec<_>>().join(", ");
            let found = format!("{} {dims:?}", tensor.dtype);
            return Err(LoadError::ConfigTensor { kind, name: tensor.name.clone(), expected, found });
        }
    }
    Ok(())
}

/// Runs a request of zeros.
fn warm_up(model: &LoadedModel, request: &Warmup, batched: bool) -> Result<(), LoadError> {
    let no_shape = || LoadError::WarmupShape { name: request.name.clone() };
    let zeros = |input: &TensorConfig| {
        let batch = batched.then_some(u64::from(request.batch_size.max(1)));
        let dims = input.dims.iter().map(|dim| u64::try_from(*dim).ok());
        let dims = batch.map(Some).into_iter().chain(dims).collect::<Option<Vec<_>>>()?;
        let shape = Shape::new(dims).ok()?;
        // An empty string is a length of zero, too.
        let len = shape.elements().checked_mul(input.dtype.size().unwrap_or(4))?;
        let mut data = Vec::new();
        data.try_reserve_exact(len).ok()?;
        data.resize(len, 0);
        Some((input.name.clone(), Tensor::new(input.dtype, shape, data).ok()?))
    };
    let inputs = request.inputs.iter().map(zeros).collect::<Option<Vec<_>>>().ok_or_else(no_shape)?;
    for _ in 0..request.count {
        let failed = |source| LoadError::Warmup { name: request.name.clone(), source };
        // Loading goes on, even if who asked for it is gone.
        let run = || model.run(&inputs, &[]).and_then(|_| model.run_alone(&inputs, &[]));
        Stop::default().during(run).map_err(failed)?;
    }
    Ok(())
}

/// Bytes that ONNX Runtime reads while it loads a model.
type SharedBytes = Erased<Arc<[u8]>>;

fn missing(place: &Place, error: HashError) -> LoadError {
    // Names within the model's folder only.
    let within = |path: &Path| {
        let folder = place.path.parent().and_then(|folder| folder.canonicalize().ok());
        let name = folder.and_then(|folder| path.strip_prefix(folder).ok().map(Path::to_owned));
        name.map_or_else(|| "a data file".into(), |name| name.display().to_string())
    };
    match error {
        HashError::Read { path, error } => LoadError::Read { file: within(&path), source: error },
        HashError::Outside { path } => LoadError::Outside { file: within(&path) },
        HashError::Model(error) => LoadError::Model(error),
        HashError::External { locations } => LoadError::Outside { file: locations.join(", ") },
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn tensor_metadata(info: &TensorInfo, parameters: Map<String, Value>) -> TensorMetadata {
    TensorMetadata { name: info.name.clone(), datatype: info.dtype, shape: info.shape.clone(), parameters }
}

/// Callers of a language model who go on in one run at most.
const TOGETHER: usize = 8;
