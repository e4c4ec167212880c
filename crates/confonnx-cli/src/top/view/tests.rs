use super::*;

fn page(requests: u32, failed: u32) -> Page {
    let fast = requests;
    let all = requests + failed;
    Page::read(&format!(
        "confonnx_requests_total{{outcome=\"ok\"}} {requests}\nconfonnx_requests_total{{outcome=\"key-unknown\"}} {failed}\n\
         confonnx_in_flight 3\nconfonnx_queue_depth 0\nconfonnx_connections 12\nconfonnx_received_bytes_total {}\n\
         confonnx_sent_bytes_total 0\nconfonnx_model_ready{{model=\"add\",version=\"1\"}} 1\n\
         confonnx_model_ready{{model=\"digits\",version=\"2\"}} 0\nconfonnx_key_expiry_timestamp_seconds 13600\n\
         confonnx_evidence_timestamp_seconds 9940\n\
         confonnx_stage_seconds_bucket{{stage=\"infer\",le=\"0.0005\"}} {fast}\n\
         confonnx_stage_seconds_bucket{{stage=\"infer\",le=\"0.1\"}} {all}\n\
         confonnx_stage_seconds_bucket{{stage=\"infer\",le=\"+Inf\"}} {all}\n\
         confonnx_model_processes_ended_total{{model=\"add\",version=\"1\",reason=\"crash\"}} 2\n",
        requests * 1000
    ))
}

fn seen(servers: &[Server]) -> String {
    text(servers, &Look { unix: 10_000.0, interval: Duration::from_secs(2) }, 120)
}

#[test]
fn rates_are_of_the_time_between_two_looks() {
    let start = Instant::now();
    let mut server = Server::new("http://one:8889");
    server.take(Ok(page(100, 0)), start);
    let first = seen(std::slice::from_ref(&server));
    assert!(first.contains("1 server, all ready"), "{first}");
    assert!(!first.contains("50.0"), "{first}");
    server.take(Ok(page(200, 2)), start + Duration::from_secs(2));
    let second = seen(std::slice::from_ref(&server));
    let row = second.lines().find(|line| line.starts_with("one:8889")).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "one:8889", "✓", "ready", "51.0", "500", "µs", "100", "ms", "3", "0", "12", "50", "kB/s", "0",
            "B/s", "1/2", "60", "min", "60", "s"
        ],
        "{second}"
    );
    let model = second.lines().find(|line| line.starts_with("digits")).unwrap();
    assert!(model.contains("✗ not served"), "{second}");
    let model = second.lines().find(|line| line.starts_with("add")).unwrap();
    assert!(model.contains("✓ served") && model.ends_with(" 2"), "{second}");
    assert!(second.contains("✗ key-unknown") && second.contains("1.0"), "{second}");
}

#[test]
fn who_does_not_answer_is_said_to_and_a_new_start_has_no_rate() {
    let start = Instant::now();
    let mut server = Server::new("http://one:8889");
    server.take(Ok(page(100, 0)), start);
    server.take(Err("Connection refused".into()), start + Duration::from_secs(2));
    let gone = seen(std::slice::from_ref(&server));
    assert!(
        gone.contains("✗ no answer")
            && gone.contains("one:8889: Connection refused")
            && gone.contains("1 not ready"),
        "{gone}"
    );
    server.take(Ok(page(100, 0)), start + Duration::from_secs(4));
    server.take(Ok(page(3, 0)), start + Duration::from_secs(6));
    let anew = seen(&[server, Server::new("two:1")]);
    let row = anew.lines().find(|line| line.starts_with("one:8889")).unwrap();
    assert!(row.contains('–') && !row.contains("-48"), "{anew}");
    assert!(anew.contains("2 servers, ") && anew.contains("not asked"), "{anew}");
}

#[test]
fn a_narrow_terminal_shows_fewer_columns_and_each_of_them_whole() {
    let start = Instant::now();
    let mut server = Server::new("http://127.0.0.1:8889");
    for (requests, seconds) in [(100, 0), (200, 2)] {
        server.take(Ok(page(requests, 0)), start + Duration::from_secs(seconds));
    }
    let at = |width: u16| {
        text(std::slice::from_ref(&server), &Look { unix: 10_000.0, interval: Duration::from_secs(2) }, width)
    };
    let narrow = at(80);
    for whole in [" models ", " key ends", "✓ ready ", "60 min", " batched/s", "✗ not served "] {
        assert!(narrow.contains(whole), "no {whole:?} in {narrow}");
    }
    assert!(!narrow.contains("kB/s") && !narrow.contains("-0"), "{narrow}");
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    // The columns stay together, however wide the terminal is.
    let wide = at(200);
    assert!(wide.contains("50 kB/s") && wide.contains("processes ended"), "{wide}");
    assert!(wide.lines().all(|line| line.trim_end().chars().count() < 130), "{wide}");
}

#[test]
fn a_long_reason_is_shown_to_its_end() {
    let mut server = Server::new("http://one:8889");
    let why = "no answer within two seconds from this server, of which the machine may be down or the way to it closed";
    server.take(Err(why.into()), Instant::now());
    let shown = text(&[server], &Look { unix: 0.0, interval: Duration::from_secs(2) }, 60);
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(words.join(" ").contains(why), "{shown}");
}
