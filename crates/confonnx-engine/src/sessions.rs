//! The sessions of a model, and how they share the cores.

use std::{
    fmt,
    num::NonZero,
    ops::{Deref, DerefMut},
    sync::Arc,
    thread,
};

use ort::{
    logging::LogLevel,
    session::{Session, builder::GraphOptimizationLevel},
};

use crate::{
    error::{Category, EngineError},
    pool::{Pool, Taken},
    runtime::Runtime,
    working_set::WorkingSet,
};

/// How the sessions of a model share the cores.
///
/// Many requests are answered soonest when each has a share of the cores, a single one when it has them all. So unless a
/// number of threads is asked for, several sessions share them out, and there is one session more, with all of them, for a
/// request that is alone. It answers like the others to the bit, which is tried when the model is loaded; where that
/// cannot be seen, each session has as many threads as there are cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Sessions that run side by side.
    sessions: usize,
    /// How many threads each has.
    threads: usize,
    /// How many threads the session for a request that is alone has, if there is one.
    alone: Option<usize>,
}

/// Threads inside one operator of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    threads: usize,
    /// Whether threads wait for the next operator by spinning: sooner there, but nobody else has the core meanwhile.
    spins: bool,
}

impl Arrangement {
    /// The arrangement for at least one session.
    pub(crate) fn new(sessions: usize, threads: Option<usize>) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self::of(cores, sessions.max(1), threads)
    }

    fn of(cores: usize, sessions: usize, threads: Option<usize>) -> Self {
        match threads {
            Some(threads) => Self { sessions, threads, alone: None },
            None if sessions == 1 || cores == 1 => Self { sessions, threads: cores, alone: None },
            None => {
                let threads = cores.checked_div(sessions).unwrap_or(1).max(1);
                Self { sessions, threads, alone: Some(cores) }
            }
        }
    }

    /// The same arrangement, in which each session has the cores that were meant for a request alone.
    pub(crate) fn without_alone(self) -> Self {
        Self { threads: self.alone.unwrap_or(self.threads), alone: None, ..self }
    }

    pub(crate) fn sessions(self) -> usize {
        self.sessions
    }

    /// Where there is one session, no other run wants the cores meanwhile: its threads spin.
    pub(crate) fn each(self) -> Width {
        Width { threads: self.threads, spins: self.sessions == 1 }
    }

    pub(crate) fn alone(self) -> Option<Width> {
        self.alone.map(|threads| Width { threads, spins: true })
    }
}

impl fmt::Display for Arrangement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let Self { sessions, threads, alone } = *self;
        write!(f, "{sessions} session{} of {threads} thread{}", plural(sessions), plural(threads))?;
        alone.map_or(Ok(()), |all| write!(f, ", and one of {all} for a request that is alone"))
    }
}

#[derive(Debug)]
pub(crate) struct Sessions {
    arrangement: Arrangement,
    each: Pool<Seat>,
    alone: Option<Pool<Seat>>,
}

/// A session, and what memory it needs.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) session: Session,
    pub(crate) working_set: WorkingSet,
}

impl From<Session> for Seat {
    fn from(session: Session) -> Self {
        Self { session, working_set: WorkingSet::default() }
    }
}

impl Sessions {
    pub(crate) fn new(arrangement: Arrangement, each: Vec<Session>, alone: Option<Session>) -> Self {
        let pool = |sessions: Vec<Session>| Pool::new(sessions.into_iter().map(Seat::from).collect());
        Self { arrangement, each: pool(each), alone: alone.map(|session| pool(vec![session])) }
    }

    pub(crate) fn arrangement(&self) -> Arrangement {
        self.arrangement
    }

    /// Takes one of the sessions that run side by side, blocking until one is idle.
    pub(crate) fn take(&self) -> Taken<'_, Seat> {
        self.each.take()
    }

    /// Takes one of the sessions that run side by side, if it is idle and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<Taken<'_, Seat>> {
        self.each.try_take()
    }

    /// Takes the session that has all cores, if there is one and it is idle, and the place of another, so that no more
    /// run at once than were asked for.
    pub(crate) fn take_all_cores(&self) -> Option<Alone<'_>> {
        let place = self.each.try_take()?;
        Some(Alone { seat: self.alone.as_ref()?.try_take()?, _place: place })
    }
}

/// The session with all cores.
pub(crate) struct Alone<'a> {
    seat: Taken<'a, Seat>,
    _place: Taken<'a, Seat>,
}

impl Deref for Alone<'_> {
    type Target = Seat;

    fn deref(&self) -> &Seat {
        &self.seat
    }
}

impl DerefMut for Alone<'_> {
    fn deref_mut(&mut self) -> &mut Seat {
        &mut self.seat
    }
}

/// A session for the model in `onnx`.
pub(crate) fn make(
    runtime: &Runtime,
    onnx: &[u8],
    external_data: &[(String, Arc<[u8]>)],
    width: Width,
) -> Result<Session, EngineError> {
    fn setup<R>(error: ort::Error<R>) -> EngineError {
        EngineError::Setup(Category::from(&error))
    }
    let mut builder = Session::builder(runtime.environment())
        .map_err(setup)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(setup)?
        .with_intra_threads(width.threads)
        .map_err(setup)?
        .with_inter_threads(1)
        .map_err(setup)?
        // Idle threads that spin take the cores that run other requests.
        .with_intra_op_spinning(width.spins)
        .map_err(setup)?
        // Threads wait less than this from one operator to the next, unless the thread that they wait for was preempted.
        .with_config_entry("session.intra_op.spin_duration_us", "50")
        .map_err(setup)?
        // Threads never spin between one request and the next.
        .with_config_entry("session.force_spinning_stop", "1")
        .map_err(setup)?
        .with_log_level(LogLevel::Fatal)
        .map_err(setup)?
        // External data that was not given would be looked for in the working directory, which nothing vouches for.
        .with_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
        .map_err(setup)?;
    for (location, content) in external_data {
        builder =
            builder.with_external_initializer_file_in_memory(location, content.clone()).map_err(setup)?;
    }
    builder.commit_from_memory(onnx).map_err(|err| refusal(&err, runtime))
}

/// Sorts a refused model. ONNX Runtime's text is searched for the names of operators, versions, types and locales but not
/// passed on: it can quote the model.
fn refusal(error: &ort::Error, runtime: &Runtime) -> EngineError {
    let category = Category::from(error);
    let message = error.message();
    let unsupported = |what: String| EngineError::Unsupported { what, runtime: runtime.version().to_owned() };
    let after = |mark: &str, until: &[char]| {
        let (_, rest) = message.split_once(mark)?;
        Some(identifier(rest.trim_start().split(until).next()))
    };
    if let Some(found) = after("Unsupported model IR version: ", &[',']) {
        let most = after("max supported IR version: ", &[' ', '\n']).unwrap_or("?").trim_end_matches('.');
        return unsupported(format!("IR version {found} (it takes up to {most})"));
    }
    if let Some(name) = after("No Op registered for ", &[' ']) {
        return unsupported(format!("the operator `{name}`"));
    }
    if let Some((before, _)) = message.split_once(" is not a registered function/op") {
        // ONNX Runtime writes the version -1 where nothing declares the operator.
        let name = before.rsplit(' ').next().map(|name| name.strip_suffix("(-1)").unwrap_or(name));
        return unsupported(format!("the operator `{}`", identifier(name)));
    }
    if let Some(name) = after("Could not find an implementation for ", &[' ']) {
        return unsupported(format!(
            "the operator `{name}` on elements of the types that the model gives it"
        ));
    }
    if let Some((_, rest)) = message.split_once("Current official support for domain") {
        let supported = rest.split("till opset ").nth(1).and_then(|rest| rest.split(['.', '\n']).next());
        let domain = identifier(rest.trim_start().split(' ').next());
        let of = if domain == "ai.onnx" || domain == "?" { String::new() } else { format!(" of {domain}") };
        return unsupported(format!("an operator set{of} newer than {}", identifier(supported)));
    }
    if let Some(name) = after("Failed to construct locale with name:", &[' ', '\n', ':']) {
        return EngineError::Locale { name: name.to_owned() };
    }
    if let Some(operator) = after("of Optype (", &[')']) {
        let bound = message.split_once("bound to different types (").map_or("", |(_, rest)| rest);
        let mut types = bound.split(" in node").next().unwrap_or_default().splitn(2, " and ");
        let mut next = || identifier(types.next()).to_owned();
        return EngineError::Types { operator: operator.to_owned(), one: next(), other: next() };
    }
    if message.contains("is not a graph input, initializer, or output of a previous node") {
        return EngineError::NoSource;
    }
    match error.code() {
        ort::ErrorCode::InvalidProtobuf | ort::ErrorCode::NoModel => EngineError::Malformed(category),
        ort::ErrorCode::NotImplemented => unsupported("an operator or type".to_owned()),
        _ => EngineError::Refused(category),
    }
}

/// What looks like an identifier, bounded; `?` for anything else.
fn identifier(text: Option<&str>) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._():-".contains(c);
    text.filter(|text| (1..=64).contains(&text.len()) && text.chars().all(plain)).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_out_unless_threads_are_asked_for() {
        let said = |cores, sessions, threads| Arrangement::of(cores, sessions, threads).to_string();
        assert_eq!(said(2, 2, None), "2 sessions of 1 thread, and one of 2 for a request that is alone");
        assert_eq!(said(64, 4, None), "4 sessions of 16 threads, and one of 64 for a request that is alone");
        assert_eq!(said(4, 8, None), "8 sessions of 1 thread, and one of 4 for a request that is alone");
        assert_eq!(said(8, 1, None), "1 session of 8 threads");
        assert_eq!(said(1, 4, None), "4 sessions of 1 thread");
        assert_eq!(said(8, 4, Some(3)), "4 sessions of 3 threads");
        assert_eq!(Arrangement::of(8, 4, None).without_alone().to_string(), "4 sessions of 8 threads");
    }
}
