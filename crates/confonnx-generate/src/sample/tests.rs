use super::*;

fn logits() -> Vec<f32> {
    vec![1.0, 3.0, 2.0, -1.0, 0.0]
}

fn counts(choices: Choices, draws: usize) -> Vec<usize> {
    let mut found = vec![0; 5];
    for seed in 0..draws {
        let chosen = Sampler::new(choices.clone(), seed as u64, &[]).choose(&mut logits(), None).unwrap();
        found[chosen.token as usize] += 1;
    }
    found
}

#[test]
fn greedy_takes_the_first_of_the_highest() {
    let mut sampler = Sampler::new(Choices { temperature: 0.0, ..Choices::default() }, 1, &[]);
    assert_eq!(sampler.choose(&mut logits(), None).unwrap().token, 1);
    assert_eq!(sampler.choose(&mut [2.0, 5.0, f32::NAN, 5.0], None).unwrap().token, 1);
    assert_eq!(sampler.choose(&mut [f32::NAN; 3], None), Err(NoChoice));
    assert_eq!(sampler.choose(&mut [f32::NEG_INFINITY; 3], None), Err(NoChoice));
    assert_eq!(sampler.choose(&mut [], None), Err(NoChoice));
    assert_eq!(sampler.choose(&mut [0.0, f32::INFINITY, 1.0], None).unwrap().token, 1);
}

#[test]
fn tokens_come_as_often_as_they_are_likely() {
    let draws = 20_000;
    let sum: f64 = logits().iter().map(|logit| f64::from(*logit).exp()).sum();
    for (count, logit) in counts(Choices::default(), draws).into_iter().zip(logits()) {
        let (found, expected) = (count as f64 / draws as f64, f64::from(logit).exp() / sum);
        assert!((found - expected).abs() < 0.015, "{found} {expected}");
    }
}

#[test]
fn what_is_cut_off_never_comes() {
    let with = |change: &dyn Fn(&mut Choices)| {
        let mut choices = Choices::default();
        change(&mut choices);
        counts(choices, 2000).iter().map(|count| usize::from(*count > 0)).collect::<Vec<_>>()
    };
    assert_eq!(with(&|c| c.top_k = 2), [0, 1, 1, 0, 0]);
    assert_eq!(with(&|c| c.top_k = 1), [0, 1, 0, 0, 0]);
    // 0.64, 0.24, 0.09, …
    assert_eq!(with(&|c| c.top_p = 0.6), [0, 1, 0, 0, 0]);
    assert_eq!(with(&|c| c.top_p = 0.7), [0, 1, 1, 0, 0]);
    assert_eq!(with(&|c| c.top_p = 0.0), [0, 1, 0, 0, 0]);
    assert_eq!(with(&|c| c.min_p = 0.3), [0, 1, 1, 0, 0]);
    assert_eq!(with(&|c| c.temperature = 0.01), [0, 1, 0, 0, 0]);
    assert_eq!(
        with(&|c| c.logit_bias = vec![(1, -100.0), (2, -100.0), (0, -100.0), (7, 100.0)]),
        [0, 0, 0, 1, 1]
    );
}

#[test]
fn what_was_said_is_less_likely() {
    let choices = Choices { temperature: 0.0, presence_penalty: 1.5, ..Choices::default() };
    let mut sampler = Sampler::new(choices.clone(), 0, &[]);
    let mut next = || sampler.choose(&mut logits(), None).unwrap().token;
    assert_eq!([next(), next(), next()], [1, 2, 1]);
    let frequency = Choices { presence_penalty: 0.0, frequency_penalty: 0.6, ..choices.clone() };
    let mut sampler = Sampler::new(frequency, 0, &[]);
    let mut next = || sampler.choose(&mut logits(), None).unwrap().token;
    assert_eq!([next(), next(), next(), next()], [1, 1, 2, 1]);
    // The prompt counts for this one only; negative logits are multiplied.
    let repetition = Choices { presence_penalty: 0.0, repetition_penalty: 2.0, ..choices };
    let mut sampler = Sampler::new(repetition, 0, &[1, 1, 3]);
    let mut changed = logits();
    assert_eq!(sampler.choose(&mut changed, None).unwrap().token, 2);
    assert_eq!(changed, [1.0, 1.5, 2.0, -2.0, 0.0]);
}

#[test]
fn a_seed_gives_the_same_tokens_again() {
    let sequence = |seed| {
        let mut sampler =
            Sampler::new(Choices { temperature: 2.0, top_p: 0.99, ..Choices::default() }, seed, &[]);
        (0..50).map(|_| sampler.choose(&mut logits(), None).unwrap().token).collect::<Vec<_>>()
    };
    assert_eq!(sequence(7), sequence(7));
    assert_ne!(sequence(7), sequence(8));
}

#[test]
fn logprobs_are_of_the_logits_as_they_came() {
    let choices =
        Choices { temperature: 0.0, logprobs: Some(2), logit_bias: vec![(4, 100.0)], ..Choices::default() };
    let chosen = Sampler::new(choices, 0, &[]).choose(&mut logits(), None).unwrap();
    let logprobs = chosen.logprobs.unwrap();
    let sum: f64 = logits().iter().map(|logit| f64::from(*logit).exp()).sum();
    assert_eq!(chosen.token, 4);
    assert!((f64::from(logprobs.chosen) - -sum.ln()).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 2]);
    assert!((f64::from(logprobs.top[0].1) - (3.0 - sum.ln())).abs() < 1e-6);
}

#[test]
fn only_allowed_tokens_are_chosen() {
    let mut sampler = Sampler::new(Choices { temperature: 0.0, ..Choices::default() }, 0, &[]);
    assert_eq!(sampler.choose(&mut logits(), Some(&|token| token == 3)).unwrap().token, 3);
    assert_eq!(sampler.choose(&mut logits(), Some(&|_| false)), Err(NoChoice));
}

#[test]
fn the_first_of_the_highest_is_best_wherever_it_is() {
    for len in [1, 15, 16, 17, 40] {
        for place in 0..len {
            let mut logits = vec![-3.0_f32; len];
            logits[len - 1 - place] = f32::NAN;
            logits[place] = 2.5;
            logits[len - 1] = logits[len - 1].max(2.5);
            assert_eq!(candidates::best(&logits), Some(place as u32), "{place} of {len}");
        }
        assert_eq!(candidates::best(&vec![f32::NEG_INFINITY; len]), None);
        assert_eq!(candidates::best(&vec![f32::NAN; len]), None);
        assert_eq!(candidates::best(&vec![f32::INFINITY; len]), Some(0));
    }
    assert_eq!(candidates::best(&[]), None);
}

#[test]
fn mass_is_found_among_many() {
    let mut random = Random::new(3);
    let many: Vec<f32> = (0..5000).map(|_| random.fraction() as f32 * 8.0).collect();
    let most = candidates::best(&many).unwrap();
    let mut sorted = many.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let weights: Vec<f64> = sorted.iter().map(|logit| f64::from(logit - sorted[0]).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (mut reached, mut wanted) = (0.0, 0);
    while reached < 0.9 * sum {
        reached += weights[wanted];
        wanted += 1;
    }
    let mut kept = Candidates::new(&many, most, 1.0);
    kept.keep_mass(0.9);
    // Differences of single precision move the border by one at most.
    let found =
        (0..=1000).filter_map(|i| kept.at(f64::from(i) / 1000.0)).collect::<std::collections::BTreeSet<_>>();
    assert!(found.iter().all(|token| many[*token as usize] >= sorted[wanted]), "{wanted}");
    assert!(found.len() > 300);
}
