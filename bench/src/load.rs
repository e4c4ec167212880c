//! The load: as many requests as the clients get answered, one after another each.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use confonnx_client::{Client, Expectations, Options, Policy};
use confonnx_engine::{Model, TensorInfo};
use confonnx_tensor::{DataType, Shape, Tensor};
use tokio::runtime::{Builder, Runtime};

use crate::stats::percentile;

/// What some clients got in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Round {
    pub(crate) requests_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Names and values.
pub(crate) type Tensors = Vec<(String, Tensor<'static>)>;

/// A model in this process, as the server loads it, one input for it, and the answer to that.
pub(crate) struct Bare {
    model: Model,
    pub(crate) inputs: Tensors,
    pub(crate) outputs: Tensors,
}

/// One client of a server, with connections and a thread's worth of event loop of its own.
pub(crate) struct SealedClient {
    runtime: Runtime,
    client: Client,
}

/// Lets every worker `ask`, over and over, each on a thread of its own, until `length` has passed. `ask` returns how
/// long its request took.
pub(crate) fn round<W: Send>(
    workers: &mut [W],
    length: Duration,
    ask: impl Fn(&mut W) -> anyhow::Result<Duration> + Sync,
) -> anyhow::Result<Round> {
    let ready = Barrier::new(workers.len());
    let work = |worker: &mut W| {
        let mut latencies = Vec::new();
        ready.wait();
        let start = Instant::now();
        while start.elapsed() < length {
            latencies.push(ask(worker)?);
        }
        anyhow::Ok((latencies, start, Instant::now()))
    };
    let parts = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(move || work(worker))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
        };
        threads.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
    })?;
    let first = parts.iter().map(|part| part.1).min().context("no clients")?;
    let last = parts.iter().map(|part| part.2).max().context("no clients")?;
    let latencies: Vec<f64> = parts.iter().flat_map(|part| &part.0).map(micros).collect();
    Ok(Round {
        requests_per_s: latencies.len() as f64 / (last - first).as_secs_f64(),
        p50_us: percentile(latencies.iter().copied(), 50),
        p99_us: percentile(latencies, 99),
    })
}

/// `time` in µs.
pub(crate) fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Bare {
    pub(crate) fn new(model: Model) -> anyhow::Result<Self> {
        let inputs = model.inputs().iter().map(made_up).collect::<anyhow::Result<Tensors>>()?;
        let outputs = model.run(&inputs, &[])?;
        Ok(Self { model, inputs, outputs })
    }

    /// Runs the model on the calling thread.
    pub(crate) fn ask(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let outputs = self.model.run(&self.inputs, &[])?;
        let time = start.elapsed();
        same(&self.outputs, &outputs).context("bare ONNX Runtime differs from itself")?;
        Ok(time)
    }
}

impl SealedClient {
    /// Attests the server at `url`, then seals with X-Wing and AES-256-GCM, each request to a key of its own.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let policy = Policy::new(Expectations { allow_debug: true, ..Expectations::default() })?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(url, policy, Options::default())?;
        runtime.block_on(client.attest())?;
        Ok(Self { runtime, client })
    }

    /// Asks the server what `bare` was asked. The answer has to be the same to the bit.
    pub(crate) fn ask(&mut self, name: &str, bare: &Bare) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let inputs = bare.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.borrowed())).collect();
        let outputs = self.runtime.block_on(self.client.infer(Some(name), inputs, &[]))?;
        let time = start.elapsed();
        same(&bare.outputs, &outputs).context("the sealed answer differs from bare ONNX Runtime")?;
        Ok(time)
    }
}

/// Numbers from 0 to 1, the same in every run; dynamic dimensions become 1.
fn made_up(input: &TensorInfo) -> anyhow::Result<(String, Tensor<'static>)> {
    if input.dtype != DataType::Fp32 {
        bail!("input {} is {:?}; only FP32 is made up here", input.name, input.dtype);
    }
    let dims: Vec<u64> = input.shape.iter().map(|&dim| u64::try_from(dim).unwrap_or(1)).collect();
    let shape = Shape::new(dims)?;
    let mut state = 1_u32;
    let data: Vec<u8> = (0..shape.elements())
        .flat_map(|_| {
            // The constants of Numerical Recipes; its upper 24 bits are what a float holds.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 24) as f32).to_le_bytes()
        })
        .collect();
    Ok((input.name.clone(), Tensor::new(DataType::Fp32, shape, data)?))
}

/// Fails unless names, types, shapes and every bit are the same.
fn same(expected: &Tensors, found: &Tensors) -> anyhow::Result<()> {
    if expected.len() != found.len() {
        bail!("expected {} outputs, found {}", expected.len(), found.len());
    }
    for ((name, tensor), (found_name, found)) in expected.iter().zip(found) {
        let alike = name == found_name && tensor.dtype() == found.dtype() && tensor.shape() == found.shape();
        if !alike {
            bail!("expected output {name} {tensor:?}, found {found_name} {found:?}");
        }
        if let Some(at) = tensor.data().iter().zip(found.data()).position(|(a, b)| a != b) {
            bail!("output {name} differs from octet {at} on");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(values: [f32; 2]) -> Tensors {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        vec![("y".into(), Tensor::new(DataType::Fp32, Shape::new([2]).unwrap(), data).unwrap())]
    }

    #[test]
    fn outputs_are_compared_bit_by_bit() {
        same(&output([0.0, 1.0]), &output([0.0, 1.0])).unwrap();
        same(&output([f32::NAN, 1.0]), &output([f32::NAN, 1.0])).unwrap();
        let error = same(&output([1.0, 0.0]), &output([1.0, -0.0])).unwrap_err();
        assert_eq!(error.to_string(), "output y differs from octet 7 on");
        same(&output([1.0, 0.0]), &vec![]).unwrap_err();
        let mut renamed = output([1.0, 0.0]);
        renamed[0].0 = "z".into();
        same(&output([1.0, 0.0]), &renamed).unwrap_err();
    }

    #[test]
    fn inputs_fit_the_model() {
        let info = TensorInfo { name: "x".into(), dtype: DataType::Fp32, shape: vec![-1, 16] };
        let (name, tensor) = made_up(&info).unwrap();
        assert_eq!((name.as_str(), tensor.shape().dims(), tensor.data().len()), ("x", &[1, 16][..], 64));
        let (numbers, []) = tensor.data().as_chunks() else { panic!("16 floats") };
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(&f32::from_le_bytes(*number))));
    }

    #[test]
    fn a_round_counts_what_every_client_did() {
        let mut asked = [0_u32; 3];
        let ask = |asked: &mut u32| {
            *asked += 1;
            Ok(Duration::from_micros(u64::from(*asked)))
        };
        let found = round(&mut asked, Duration::from_millis(5), ask).unwrap();
        assert!(asked.iter().all(|asked| *asked > 0) && found.requests_per_s > 0.0, "{asked:?} {found:?}");
        let error = round(&mut [()], Duration::from_millis(5), |()| bail!("refused")).unwrap_err();
        assert_eq!(error.to_string(), "refused");
    }
}
