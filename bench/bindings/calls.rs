//! Calls in sequence by the native client: calls URL SECONDS; prints calls in a second, and bytes of the large calls.

#![allow(clippy::restriction, reason = "a tool for this repository, which may panic")]

use std::time::{Duration, Instant};

use confonnx_client::blocking::Client;
use confonnx_client::{DataType, Expectations, Options, Policy, Shape, Tensor};

fn main() {
    let [url, seconds] = std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("URL SECONDS");
    let seconds = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let policy = Policy::new(Expectations::new().allow_debug(true)).expect("a policy");
    let client = Client::new(&url, policy, Options::new()).expect("a client");
    let measure = |count: u64| {
        let pixels = vec![0; usize::try_from(count * 784 * 4).expect("it is small")];
        let shape = Shape::new([count, 1, 28, 28]).expect("four dimensions");
        let call = || {
            let image = Tensor::new(DataType::Fp32, shape.clone(), &pixels[..]).expect("as many as it says");
            client.infer(None, vec![("image".into(), image)], &[]).expect("an answer");
        };
        (0..5).for_each(|_| call());
        let (mut calls, start) = (0_u32, Instant::now());
        while start.elapsed() < seconds {
            call();
            calls += 1;
        }
        f64::from(calls) / start.elapsed().as_secs_f64()
    };
    let (small, large) = (measure(1), measure(1024));
    println!("{{\"small\": {small}, \"large\": {}}}", large * 1024.0 * 784.0 * 4.0);
}
