use super::*;

fn load(text: &[u8], plain: bool) -> Result<Auth, AuthError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth");
    std::fs::write(&path, text).unwrap();
    let (tokens, policy) = if plain { (Some(&*path), None) } else { (None, Some(&*path)) };
    Auth::load(tokens, policy, &Arc::default())
}

fn ask(auth: &Auth, value: &str) -> Result<Caller, Refused> {
    auth.identify(Some(value.as_bytes()), UnixTime(0))
}

#[test]
fn any_of_the_tokens_and_nothing_else() {
    let auth = load(b"  battery \r\n\nstaple\n", true).unwrap();
    let allows = |value: &str| ask(&auth, value).is_ok();
    assert!(allows("Bearer battery") && allows("bearer staple") && allows("BEARER  staple"));
    for value in ["", "Bearer", "Bearer ", "Bearer batter", "Bearer batteryx", "Basic battery", "battery"] {
        assert!(!allows(value), "{value}");
    }
    assert!(matches!(auth.identify(None, UnixTime(0)), Err(Refused::Missing)));
    assert!(matches!(ask(&auth, "Bearer x"), Err(Refused::Unknown)));
    let anyone = Auth::load(None, None, &Arc::default()).unwrap();
    let caller = anyone.identify(None, UnixTime(0)).unwrap();
    assert_eq!((caller.name(), caller.via()), (None, Via::Nothing));
    caller.permit(Action::Infer, "any").unwrap();
    // A caller who is not named may not load and unload models.
    caller.permit(Action::Manage, "any").unwrap_err();
}

#[test]
fn files_without_tokens_are_refused() {
    assert!(matches!(load(b"", true), Err(AuthError::Empty { .. })));
    assert!(matches!(load(b" \n\r\n", true), Err(AuthError::Empty { .. })));
    assert!(matches!(load(b"ok\ntwo words\n", true), Err(AuthError::Token { line: 2, .. })));
    let nowhere = Path::new("/nowhere");
    let Err(error) = Auth::load(Some(nowhere), None, &Arc::default()) else { panic!("no such file") };
    assert!(error.to_string().contains("/nowhere"));
    let Err(AuthError::Both) = Auth::load(Some(nowhere), Some(nowhere), &Arc::default()) else { panic!() };
}

fn hash(token: &str) -> String {
    Digest(Sha256::digest(token).into()).to_string()
}

#[test]
fn each_caller_has_its_own_permissions() {
    let text = format!(
        r#"
        [[caller]]
        name = "alice"
        token_sha256 = ["{}", "{}"]

        [[caller]]
        name = "bob"
        token_sha256 = "{}"
        models = ["digits", "fraud-*"]
        may = ["infer", "unlock", "manage"]
        requests_per_minute = 60
        burst = 2
        "#,
        hash("a1"),
        hash("a2"),
        hash("b")
    );
    let auth = load(text.as_bytes(), false).unwrap();
    let claim = auth.claim();
    assert_eq!(claim.kind, "bearer");
    // The digest as docs/guides/auth.md tells users to compute it.
    let manifest = format!("confonnx auth policy v1\n{}  auth_file\n", hash(&text));
    assert_eq!(claim.policy_sha256.unwrap().to_string(), hash(&manifest));

    for token in ["Bearer a1", "Bearer a2"] {
        let alice = ask(&auth, token).unwrap();
        assert_eq!((alice.name(), alice.via()), (Some("alice"), Via::Token));
        alice.permit(Action::Infer, "anything").unwrap();
        assert_eq!(alice.permit(Action::Unlock, "anything"), Err(Forbidden::Action("unlock")));
        assert_eq!(alice.permit_any(Action::Manage), Err(Forbidden::Action("manage")));
        auth.admit(&alice, Instant::now()).unwrap();
    }
    let bob = ask(&auth, "Bearer b").unwrap();
    for (model, allowed) in
        [("digits", true), ("digits2", false), ("fraud-1", true), ("fraud", false), ("", false)]
    {
        assert_eq!(bob.permit(Action::Manage, model).is_ok(), allowed, "{model}");
        assert_eq!(bob.may_see(model), allowed, "{model}");
    }
    let now = Instant::now();
    auth.admit(&bob, now).unwrap();
    auth.admit(&bob, now).unwrap();
    let refused = auth.admit(&bob, now).unwrap_err();
    assert_eq!((refused.wire(), refused.retry_after()), ((429, "rate-limited"), Some(1)));
    for token in ["Bearer c", &format!("Bearer {}", hash("a1")), "Bearer a.b.c"] {
        assert!(matches!(ask(&auth, token), Err(Refused::Unknown)), "{token}");
    }
}

#[test]
fn what_a_policy_file_cannot_say() {
    let hash = hash("a");
    let caller = |more: &str| format!("[[caller]]\nname = \"a\"\ntoken_sha256 = \"{hash}\"\n{more}");
    let oidc = |more: &str| {
        format!(
            "[oidc]\nissuer = \"https://i\"\naudience = \"c\"\n{more}\n[[oidc.rule]]\nmatch.sub = \"x\"\n"
        )
    };
    parse(&caller("")).unwrap();
    parse(&oidc("jwks_file = \"k\"")).unwrap();
    parse(&oidc("jwks_url = \"https://i/k\"\nca_file = \"c\"")).unwrap();
    for (text, expected) in [
        (String::new(), "names no caller"),
        (caller("modles = [\"x\"]"), "modles"),
        (caller("models = []"), "`models` is an empty list"),
        (caller("models = [\"a*b\"]"), "no pattern"),
        (caller("may = []"), "`may` is an empty list"),
        (caller("may = [\"all\"]"), "unknown variant"),
        (caller("requests_per_minute = 0"), "nonzero"),
        (caller("burst = 3"), "`burst` without"),
        (caller(&caller("")), "[[caller]] 2: its name"),
        (caller(&caller("").replace("\"a\"", "\"b\"")), "[[caller]] 2: its token_sha256"),
        ("[[caller]]\nname = \"a\"\ntoken_sha256 = []".into(), "`token_sha256` is an empty list"),
        ("[[caller]]\nname = \"a\"\ntoken_sha256 = \"secret\"".into(), "64 hex digits"),
        (caller("").replace("\"a\"", "\"a\\n\""), "visible characters"),
        (oidc(""), "either `jwks_file`"),
        (oidc("jwks_url = \"https://i/k\""), "together with `ca_file`"),
        (oidc("jwks_url = \"http://i/k\"\nca_file = \"c\""), "expected https://"),
        (oidc("jwks_url = \"https://u:p@i/k\"\nca_file = \"c\""), "expected https://"),
        (oidc("jwks_file = \"k\"\njwks_url = \"https://i/k\"\nca_file = \"c\""), "either `jwks_file`"),
        (oidc("jwks_file = \"k\"\nalgorithms = [\"none\"]"), "unknown variant `none`"),
        (oidc("jwks_file = \"k\"\nalgorithms = [\"HS256\"]"), "unknown variant `HS256`"),
        (oidc("jwks_file = \"k\"\nleeway_s = 601"), "`leeway_s` is 601"),
        (oidc("jwks_file = \"k\"").replace("match", "name = \"{sub\"\nmatch"), "visible characters"),
        ("[oidc]\nissuer = \"i\"\naudience = \"c\"\njwks_file = \"k\"".into(), "`rule` is an empty list"),
        (" ".repeat((1 << 20) + 1), "more than"),
    ] {
        let error = parse(&text).expect_err(&text).to_string();
        assert!(error.contains(expected), "{error}\nfor {text}");
    }
}

#[test]
fn challenges_keep_to_their_grammar() {
    let refused = Refused::Jwt(JwtError::Name("\"{x}\\é\"".into()));
    let challenge = refused.challenge().unwrap();
    assert!(
        challenge.is_ascii() && challenge.matches('"').count() == 4 && !challenge.contains('\\'),
        "{challenge}"
    );
}
