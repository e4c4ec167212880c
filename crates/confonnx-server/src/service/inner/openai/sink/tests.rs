use confonnx_generate::openai::Kind;

use super::*;

#[test]
fn pieces_have_one_size_whatever_they_say() {
    for len in [0, 1, 250, 507, 508] {
        let mut piece = Erased::new(vec![b'x'; len]);
        pad(&mut piece);
        assert_eq!(piece.len(), SIZE, "{len}");
        assert!(piece.ends_with(b"\n\n") && piece[len..].starts_with(b": "));
    }
    let mut long = Erased::new(vec![b'x'; 509]);
    pad(&mut long);
    assert_eq!(long.len(), 2 * SIZE);
}

/// Two answers that are sent at fixed instants.
fn paced() -> Streaming {
    Streaming {
        stream: None,
        writer: Writer::new(Kind::Chat, "1", 0, ("chat", "1"), "f"),
        begun: vec![false; 2],
        left: 2,
        failure: None,
        usage: Usage { prompt: 3, answer: 4 },
        tell_usage: true,
        slots: Some(Slots::new(2)),
    }
}

/// What is said of an answer before each instant.
type Said = Vec<Vec<(usize, String)>>;

/// The pieces of 40 instants, with `said` before each of the first ones, and then the ends.
fn pieces(said: &Said) -> Vec<Erased<Vec<u8>>> {
    let mut all = paced();
    let mut pieces = Vec::new();
    for instant in 0..40 {
        let slots = all.slots.as_mut().unwrap();
        for (index, text) in said.get(instant).into_iter().flatten() {
            let told = Told { chosen: (text.clone(), -1.0), top: vec![(text.clone(), -1.0)] };
            let told = (*index == 1).then(|| vec![told]);
            slots.add(*index, Choice { text: Erased::new(text.clone()), told, finish: None });
        }
        if instant == said.len() {
            for index in 0..2 {
                slots.add(index, Choice { finish: Some(Finish::Stop), ..Choice::default() });
            }
            all.left = 0;
        }
        let (piece, last) = all.slot().unwrap();
        pieces.push(piece);
        if last {
            break;
        }
    }
    pieces
}

#[test]
fn at_each_instant_there_is_one_piece_of_one_size_and_it_does_not_show_what_it_says() {
    let word = |length: usize| "é".repeat(length);
    let courses: [Said; 5] = [
        vec![Vec::new(); 20],
        (0..20).map(|_| vec![(0, word(1)), (1, word(2))]).collect(),
        // Many tokens at once, and then none for long.
        (0..20)
            .map(|at| if at == 3 { vec![(0, word(30)), (0, word(500)), (1, word(90))] } else { Vec::new() })
            .collect(),
        (0..20).map(|at| vec![(0, word(at % 7)), (1, word(at * 3 % 40))]).collect(),
        (0..20).map(|at| vec![(0, word(150 + at))]).collect(),
    ];
    for said in &courses {
        let pieces = pieces(said);
        assert!(pieces.iter().all(|piece| piece.len() == SIZE));
        // While the answers are made there is one at each instant, whatever is said.
        assert!(pieces.len() > said.len(), "{}", pieces.len());
        let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let whole = String::from_utf8(whole).unwrap();
        // As clients read events: blank lines and comments are nothing.
        let data: Vec<&str> = whole.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert!(
            whole.lines().all(|line| line.is_empty() || line.starts_with(": ") || line.starts_with("data: "))
        );
        assert_eq!(data.last(), Some(&"[DONE]"));
        let events: Vec<Value> =
            data[..data.len() - 1].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.last().unwrap()["usage"]["total_tokens"], 7);
        for index in 0..2 {
            let of = |event: &&Value| event["choices"][0]["index"] == index;
            let text: String = events
                .iter()
                .filter(of)
                .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
                .collect();
            let all = said.iter().flatten().filter(|(of, _)| *of == index);
            assert_eq!(text, all.map(|(_, text)| text.as_str()).collect::<String>());
        }
    }
}

#[test]
fn after_an_answer_that_fails_nothing_says_that_all_is_done() {
    let mut all = paced();
    all.left = 0;
    let slots = all.slots.as_mut().unwrap();
    for (index, finish) in [(0, Finish::Unkept), (1, Finish::Stop)] {
        slots.add(index, Choice { finish: Some(finish), ..Choice::default() });
    }
    let mut whole = String::new();
    loop {
        let (piece, last) = all.slot().unwrap();
        whole.push_str(std::str::from_utf8(&piece).unwrap());
        if last {
            break;
        }
    }
    assert!(whole.contains(r#""code":"response-format-too-costly""#), "{whole}");
    assert!(whole.contains(r#""finish_reason":"stop""#) && !whole.contains("[DONE]"), "{whole}");
}

#[test]
fn an_answer_that_has_no_end_is_not_padded_for_ever() {
    let text = Arc::new(Mutex::new(paced()));
    // Nobody takes what it sends.
    assert!(!AtInstants(text).tick());
}
